"""One long table: what every lens says, one number per row, in columns that all lenses share and keys of its own.

On pandas, not on xarray: what a lens measures is ragged (a statistic exists for some layers, labels or pairs of labels
only), its users know data frames, and a table is read from Parquet as it is.

The shared columns, of which a lens writes those that it has: step, layer, split, label, statistic, value, its 95 %
interval low and high, and n, the number of things behind it. What is unknown is NaN, never null. Three questions, one
line each:

    table.course(statistic="novelty", layer=4)          how does a number move over the checkpoints
    table.grid(statistic="effective_rank")[-1, :, 0]     how does it differ between the layers at the last one
    table.frame.query("label == 'positive'")             everything about one class, as a data frame
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

SHARED: dict[str, Any] = {"step": -1, "layer": -1, "split": "", "label": "", "statistic": "", "value": np.nan,
                          "low": np.nan, "high": np.nan, "n": -1}
"""Columns that all lenses share, and what stands for one that a lens lacks."""
INTERVAL = ["value", "low", "high"]
Types = Mapping[str, type]
"""Columns of a table in their order, and the type of each: a NumPy type, or str."""


@dataclass(frozen=True)
class LongTable:
    """Rows of a lens; text columns of `frame` are categories, so that choosing rows does not compare texts."""

    frame: pd.DataFrame

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]], types: Types) -> "LongTable":
        """The table of rows that name every column of `types`; a value None is NaN. KeyError names a column that is
        absent."""
        listed = list(rows)
        return cls.of_columns({name: [row[name] for row in listed] for name in types}, types)

    @classmethod
    def of_columns(cls, columns: Mapping[str, Any], types: Types | None = None) -> "LongTable":
        """The table of columns of equal length: arrays or lists. types: as they are without."""
        kinds = types or dict.fromkeys(columns, None)
        return cls(pd.DataFrame({name: _column(columns[name], kind) for name, kind in kinds.items()}))

    def __len__(self) -> int:
        return len(self.frame)

    def columns(self) -> dict[str, Any]:
        """The columns as `store.tables.write_table` takes them: arrays, and lists of texts."""
        return {name: values.tolist() if isinstance(values.dtype, pd.CategoricalDtype) else values.to_numpy()
                for name, values in self.frame.items()}

    def shared(self) -> pd.DataFrame:
        """The rows with every shared column, those that this lens lacks filled as `SHARED` says; its own keys
        follow."""
        defaults = {name: value for name, value in SHARED.items() if name not in self.frame}
        own_columns = [name for name in self.frame if name not in SHARED]
        return self.frame.assign(**defaults)[[*SHARED, *own_columns]]

    def distinct(self, column: str) -> list[Any]:
        """The values of a column: numbers ascending, texts in the order in which they come first."""
        values = self.frame[column].unique().tolist()
        return values if isinstance(self.frame[column].dtype, pd.CategoricalDtype) else sorted(values)

    def select(self, **where: Any) -> "LongTable":
        """The rows whose columns have these values; a list, tuple or set stands for any of its values.

        E.g. `select(statistic="accuracy", split=["train", "test"])`. KeyError names a column that the table lacks.
        """
        keep = np.ones(len(self.frame), dtype=bool)
        for name, value in where.items():
            column = self.frame[name]
            keep &= (column.isin(list(value)) if isinstance(value, list | tuple | set) else column == value).to_numpy()
        return LongTable(self.frame[keep])

    def sorted(self, *names: str) -> "LongTable":
        """The rows by these columns, ascending; equal ones keep their order."""
        return LongTable(self.frame.sort_values(list(names), kind="stable"))

    def averaged(self, *names: str) -> "LongTable":
        """Means of value, low and high over the rows that agree in these columns, e.g. over seeds: one row each,
        ascending."""
        groups = self.frame.groupby(list(names), observed=True)
        place, sizes = groups.ngroup().to_numpy(), groups.size()
        means = {name: np.bincount(place, self.frame[name], len(sizes)) / sizes.to_numpy() for name in INTERVAL}
        return LongTable(sizes.index.to_frame(index=False).assign(**means))

    def course(self, steps: Sequence[int] | None = None, **where: Any) -> np.ndarray:
        """One number over the checkpoints: (step, 3) float64, value, low, high; NaN where there is no row.

        steps: those of the chosen rows, ascending, if left out. ValueError where several rows stand for one step.
        """
        part = self.select(**where)
        row_steps = part.distinct("step") if steps is None else list(steps)
        return part._cells(["step"]).reindex(row_steps).to_numpy(np.float64)

    def grid(self, steps: Sequence[int] | None = None, layers: Sequence[int] | None = None, **where: Any) -> np.ndarray:
        """One number over checkpoints and layers: (step, layer, 3) float64, value, low, high; NaN where there is no
        row.

        steps, layers: those of the chosen rows, ascending, if left out. ValueError where several rows stand for one
        place.
        """
        part = self.select(**where)
        down = part.distinct("step") if steps is None else list(steps)
        across = part.distinct("layer") if layers is None else list(layers)
        cells = part._cells(["step", "layer"]).reindex(pd.MultiIndex.from_product([down, across]))
        return cells.to_numpy(np.float64).reshape(len(down), len(across), len(INTERVAL))

    def value(self, **where: Any) -> float:
        """The number of the one row that is meant; NaN where there is none. ValueError where there are several."""
        values = self.select(**where).frame["value"]
        if len(values) > 1:
            raise ValueError(f"{where}: {len(values)} rows, where one is meant")
        return float(values.iloc[0]) if len(values) else float("nan")

    def headlines(self, wanted: Mapping[str, Mapping[str, Any]], steps: Sequence[int],
                  layers: Sequence[int] | None = None
                  ) -> dict[str, float]:
        """Flat numbers of the first and the last checkpoint: `NAME/first`, `NAME/last`, or `NAME/layer-04/last` with
        layers.

        wanted: name -> which rows (see `select`);  steps: ascending. Numbers that are not finite are left out.
        """
        numbers: dict[str, float] = {}
        ends = {"first": steps[0], "last": steps[-1]}
        for name, where in wanted.items():
            if layers is None:
                numbers |= dict(zip((f"{name}/{when}" for when in ends),
                                    self.course(list(ends.values()), **where)[:, 0].tolist(), strict=True))
                continue
            for when, row in zip(ends, self.grid(list(ends.values()), layers, **where)[..., 0].tolist(), strict=True):
                numbers |= {f"{name}/layer-{layer:02d}/{when}": value for layer, value in zip(layers, row, strict=True)}
        return known(numbers)

    def _cells(self, place: list[str]) -> pd.DataFrame:
        """Value, low and high by place, each of which one row stands for."""
        cells = self.frame.set_index(place)[INTERVAL]
        if not cells.index.is_unique:
            twice = self.frame[self.frame.duplicated(place, keep=False)]
            differ = [name for name in twice if name not in (*place, *INTERVAL, "n") and twice[name].nunique() > 1]
            raise ValueError(f"several rows stand for one {' and '.join(place)}; choose by "
                             f"{', '.join(differ) or 'fewer rows'}")
        return cells


def known(numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers that are finite, as metrics.json takes them."""
    return {name: float(value) for name, value in numbers.items() if np.isfinite(value)}


def _column(values: Any, kind: type | None) -> Any:
    if kind is None:
        values = np.asarray(values)
        kind = str if values.dtype.kind in "OU" else values.dtype.type
    if kind is str:
        return pd.Categorical(np.asarray(values, dtype=object))
    return np.asarray(values, dtype=kind)
