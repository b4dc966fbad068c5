"""The one table of a study: every number is there once, at the right time."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.outputs import fresh, make_lens, make_project, manifest

from finetrace.atlas import table
from finetrace.atlas.collect import Entry, collect
from finetrace.atlas.places import collect_places
from finetrace.atlas.table import COLUMNS, VERSION, TimeAxis, one_table
from finetrace.layout import Layout
from finetrace.store.files import write_json
from finetrace.store.manifest import complete
from finetrace.store.tables import write_table

PLACE = "micro-a/micro-sentiment/ft/s1"
RUN = {"model": "micro-a", "task": "micro-sentiment", "method": "ft", "seed": 1}
ROWS = [
    {"step": 0, "layer": 0, "split": "test", "head": "mlp", "seed": 3, "epoch": 7, "statistic": "f1", "value": 0.5},
    {"step": 40, "layer": 1, "split": "test", "head": "mlp", "seed": -1, "epoch": -1, "statistic": "f1",
     "value": np.nan},
]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout, _ = make_project(tmp_path_factory.mktemp("project"), atlas=False)
    folder = fresh(layout.place(PLACE) / "probes")
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    write_table(folder / "table.parquet", columns | {"low": [0.25, np.nan], "high": [0.75, np.nan], "n": [9, 9],
                                                     "p": [0.1, 0.2]})
    write_json(folder / "metrics.json", {"f1/last": 0.5})
    complete(folder, manifest("lens", "probes", PLACE))
    return layout


@pytest.fixture(scope="module")
def frame(layout: Layout) -> pd.DataFrame:
    looked = {"probes": [PLACE], "infodynamics": [PLACE]}
    found = [*collect([RUN], looked, layout), *collect_places(["micro-a/pretrain"], {}, layout)]
    shared = make_lens(layout.root / "comparisons" / "seeds", "comparison", "seeds", 10)
    assert shared.stage == "comparison"
    path = layout.root / "table.parquet"
    write_table(path, one_table(found, [("comparison", layout.root / "comparisons" / "seeds")]))
    assert pq.read_schema(path).metadata[b"finetrace_table"] == str(VERSION).encode()
    return pd.read_parquet(path)


def test_it_has_the_columns_that_are_documented(frame: pd.DataFrame) -> None:
    assert list(frame) == list(COLUMNS) and len(frame) > 100
    kept = ["place", "lens", "quantity", "step", "examples", "layer", "split", "label", "keys"]
    assert not frame.duplicated(kept).any()
    texts = [name for name, (kind, _) in COLUMNS.items() if pa.types.is_dictionary(kind)]
    assert frame[texts].notna().all().all()


def test_rows_of_a_lens_keep_their_keys_and_get_the_time_of_the_training(frame: pd.DataFrame) -> None:
    first, last = frame[(frame.lens == "probes") & (frame.step >= 0)].to_dict("records")
    assert first["keys"] == "head=mlp seed=3 epoch=7" and last["keys"] == "head=mlp"
    assert (first["seed"], first["epoch"], first["examples"], first["low"], first["n"]) == (1, 0.0, 0.0, 0.25, 9)
    assert (last["seed"], last["epoch"], last["examples"], last["layer"]) == (1, 0.4, 640.0, 1)
    assert np.isnan(last["value"])


def test_numbers_about_the_whole_have_no_step(frame: pd.DataFrame) -> None:
    whole = frame[(frame.step == -1) & (frame.place == PLACE)].set_index(["lens", "quantity"])["value"]
    assert whole["probes", "f1/last"] == 0.5 and whole["trajectory", "validation/accuracy"] == 0.91
    assert whole["infodynamics", "slope"] == 0.5


def test_the_training_itself_and_what_is_shared(frame: pd.DataFrame) -> None:
    at_end = frame[(frame.lens == "trajectory") & (frame.place == PLACE) & (frame.step == 40)]
    accuracy = at_end[(at_end.quantity == "accuracy") & (at_end.split == "validation")]
    assert accuracy["value"].tolist() == [0.9]
    assert set(at_end[at_end.split == "train"].quantity) == {"loss", "learning_rate", "gradient_norm", "head_norm"}
    assert set(frame[frame.place == "micro-a/pretrain"].method) == {"pretrain"}
    shared = frame[frame.place == "comparisons/seeds"]
    assert len(shared) and set(shared.lens) == {"comparison"} and shared.examples.notna().all()


def test_curves_over_examples_know_their_step(frame: pd.DataFrame) -> None:
    curve = frame[(frame.lens == "infodynamics") & (frame.quantity == "novelty") & (frame.step >= 0)]
    np.testing.assert_array_equal(curve["step"], np.minimum(curve["examples"] // 16, 40))
    assert "label" not in set(frame.quantity)  # a column of texts


def test_tokens_are_those_before_the_step(tmp_path: Path) -> None:
    """history tells with each step what has been seen with it."""
    write_table(tmp_path / "history.parquet", {
        "step": [0, 0, 1, 2, 2], "kind": ["eval", "train", "train", "train", "eval"], "examples": [0, 0, 4, 8, 8],
        "epoch": [0.0, 0.0, 0.5, 1.0, 1.0], "tokens": [None, 10, 25, 31, None]})
    found = TimeAxis.of(tmp_path).at(np.array([-1, 0, 1, 2, 3]))
    np.testing.assert_array_equal(found["tokens"], [np.nan, 0, 10, 25, np.nan])
    np.testing.assert_array_equal(found["examples"], [np.nan, 0, 4, 8, np.nan])


def test_long_histories_are_thinned_and_keep_ends_and_evaluations(tmp_path: Path, layout: Layout) -> None:
    steps = np.repeat(np.arange(5000), 2)
    kind = np.tile(["eval", "train"], 5000)
    write_table(fresh(tmp_path / "trajectory") / "history.parquet", {
        "step": steps, "kind": kind.tolist(), "split": [None if k == "train" else "validation" for k in kind],
        "examples": steps * 2, "epoch": steps / 9, "loss": steps / 2})
    whole = collect([RUN], {}, layout)[0]
    entry = Entry("key", "m", "t", "ft", 1, tmp_path, whole.manifest, {"trajectory": {}})
    frame = one_table([entry]).to_pandas()
    assert (frame.split == "validation").sum() == 5000 and (frame.split == "train").sum() == table._TRAINING_ROWS
    assert frame[frame.split == "train"].step.agg(["min", "max"]).tolist() == [0, 4999]
    np.testing.assert_array_equal(frame["value"], frame["step"] / 2)


def test_a_study_without_anything_has_the_columns() -> None:
    assert one_table([]).column_names == list(COLUMNS) and one_table([]).num_rows == 0


def test_the_documents_say_what_its_columns_are() -> None:
    text = (Path(__file__).parents[2] / "docs" / "use.md").read_text("utf-8")
    for name, (_, sentence) in COLUMNS.items():
        assert f"| `{name}` | {sentence} |" in text, name


def test_the_questions_of_the_documents_have_answers(frame: pd.DataFrame) -> None:
    text = (Path(__file__).parents[2] / "docs" / "use.md").read_text("utf-8")
    questions = [line for line in text.splitlines() if line.startswith("t.query(")]
    assert len(questions) == 3
    accuracy = eval(questions[0], {"t": frame})
    assert accuracy.loc[("micro-a", "micro-sentiment", "ft"), "mean"] == 0.91
    assert all(isinstance(eval(question, {"t": frame}), pd.DataFrame | pd.Series) for question in questions)
