"""Who taught what, for the page: the rows of pairs.parquet, with texts that are cut; nothing without the lens."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from tests.atlas_pages import unpack
from tests.outputs import manifest

from finetrace.atlas.answers import LONGEST
from finetrace.atlas.collect import Entry
from finetrace.atlas.taught import packed_influence
from finetrace.store.tables import write_table

ROWS = [{"eval_example_id": 7, "eval_text": text, "eval_label": "no", "kind": kind, "rank": 1, "train_example_id": 2,
         "train_text": other, "train_label": "yes", "influence": value, "cosine": value / 2,
         "step_0": value / 4, "step_16": 3 * value / 4,
         "group_head": value} for kind, value, text, other in (("helpful", 0.5, "short", "x" * 500),
                                                                ("harmful", -0.25, "short", "<b>"))]


def entry(folder: Path, **metrics: dict[str, float]) -> Entry:
    parts = {"trajectory": {}, **metrics}
    return Entry("m_t_ft_s1", "m", "t", "ft", 1, folder, manifest("trajectory", "train", "m"), parts)


def test_rows_and_texts(tmp_path: Path) -> None:
    (tmp_path / "influence").mkdir()
    write_table(tmp_path / "influence/pairs.parquet", pa.Table.from_pylist(ROWS))
    (taught,) = packed_influence([entry(tmp_path, influence={"agreement": 0.5}), entry(tmp_path)])
    columns, head = unpack(taught[1])
    assert taught[0].place == "m/t/ft/s1" and "group_head" not in columns and head["rows"] == 2
    for name in ("influence", "cosine", "step_0", "step_16"):
        np.testing.assert_array_equal(columns[name], np.array([row[name] for row in ROWS], np.float32))
    texts = [head["texts"]["train_text"][code] for code in columns["train_text"]]
    assert texts == ["x" * (LONGEST - 1) + "…", "<b>"] and head["texts"]["eval_text"] == ["short"]

