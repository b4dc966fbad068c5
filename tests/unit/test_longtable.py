"""The long table against plain loops over rows."""

import numpy as np
import pandas as pd
import pytest

from finetrace.longtable import SHARED, LongTable, known
from finetrace.store.tables import read_long_table, write_table

TYPES = {"step": np.int64, "layer": np.int32, "statistic": str, "value": np.float64, "low": np.float64,
         "high": np.float64, "n": np.int64, "seed": np.int32}


def rows_of(seeds=(1,)):
    random = np.random.default_rng(0)
    return [{"step": step, "layer": layer, "statistic": name, "value": random.normal(), "low": np.nan,
             "high": random.normal(), "n": 5, "seed": seed}
            for name in ("rank", "cosine") for step in (8, 0, 2) for layer in (2, 0, 1) for seed in seeds
            if (name, step, layer) != ("rank", 2, 1)]


@pytest.fixture
def table() -> LongTable:
    return LongTable.of_rows(rows_of(), TYPES)


def slow(rows, steps, layers, **where):
    found = np.full((len(steps), len(layers), 3), np.nan)
    for row in rows:
        if all(row[name] == value for name, value in where.items()) and row["step"] in steps and row["layer"] in layers:
            found[steps.index(row["step"]), layers.index(row["layer"])] = [row["value"], row["low"], row["high"]]
    return found


@pytest.mark.parametrize("name", ["rank", "cosine", "nothing of the kind"])
def test_a_grid_is_what_a_loop_over_the_rows_gives(table, name):
    for steps, layers in (([0, 2, 8], [0, 1, 2]), ([8], [2, 0]), ([0, 5], [7])):
        np.testing.assert_array_equal(table.grid(steps, layers, statistic=name),
                                      slow(rows_of(), steps, layers, statistic=name))


def test_a_grid_without_axes_has_those_of_the_chosen_rows_ascending(table):
    np.testing.assert_array_equal(table.grid(statistic="rank"), slow(rows_of(), [0, 2, 8], [0, 1, 2], statistic="rank"))


def test_a_course_is_a_layer_of_the_grid(table):
    whole = table.grid(statistic="cosine")
    for place, layer in enumerate([0, 1, 2]):
        np.testing.assert_array_equal(table.course(statistic="cosine", layer=layer), whole[:, place])


def test_the_order_of_the_rows_changes_nothing(table):
    mixed = LongTable(table.frame.sample(frac=1, random_state=1))
    np.testing.assert_array_equal(mixed.grid(statistic="rank"), table.grid(statistic="rank"))
    asked = {"r": {"statistic": "rank"}}
    assert mixed.headlines(asked, [0, 8], [0, 1]) == table.headlines(asked, [0, 8], [0, 1])


def test_two_rows_for_one_place_are_refused_and_the_column_to_choose_by_is_named():
    twice = LongTable.of_rows(rows_of(seeds=(1, 2)), TYPES)
    with pytest.raises(ValueError, match=r"several rows stand for one step and layer; choose by seed"):
        twice.grid(statistic="rank")
    with pytest.raises(ValueError, match=r"2 rows, where one is meant"):
        twice.value(statistic="rank", step=0, layer=0)
    np.testing.assert_array_equal(twice.grid(statistic="rank", seed=2),
                                  slow(rows_of(seeds=(1, 2)), [0, 2, 8], [0, 1, 2], statistic="rank", seed=2))


def test_means_over_seeds_are_those_of_the_rows():
    seeds, rows = (1, 2, 3), rows_of(seeds=(1, 2, 3))
    means = LongTable.of_rows(rows, TYPES).select(statistic="rank").averaged("step", "layer")
    assert len(means) * len(seeds) == sum(row["statistic"] == "rank" for row in rows)
    several = [[row["value"], row["high"]] for row in rows
               if (row["statistic"], row["step"], row["layer"]) == ("rank", 8, 2)]
    value, high = np.mean(several, axis=0)
    np.testing.assert_array_equal(means.grid([8], [2])[0, 0], [value, np.nan, high])
    assert not len(means.select(step=5).averaged("step"))


def test_several_values_may_be_chosen(table):
    assert len(table.select(layer=[0, 2], statistic="rank")) == 6
    with pytest.raises(KeyError, match="no_such"):
        table.select(no_such=1)


def test_headlines_are_first_and_last_and_known(table):
    rows = {(r["statistic"], r["step"], r["layer"]): r["value"] for r in rows_of()}
    assert table.headlines({"a": {"statistic": "rank"}, "b": {"statistic": "rank", "layer": 9}}, [2, 8], [1, 2]) == {
        "a/layer-02/first": rows["rank", 2, 2], "a/layer-01/last": rows["rank", 8, 1],
        "a/layer-02/last": rows["rank", 8, 2]}
    assert table.headlines({"c": {"statistic": "cosine", "layer": 0}}, [0, 8]) == {
        "c/first": rows["cosine", 0, 0], "c/last": rows["cosine", 8, 0]}
    assert known({"a": np.inf, "b": np.nan, "c": 1}) == {"c": 1.0}


def test_one_value(table):
    row = rows_of()[0]
    assert table.value(statistic="rank", step=row["step"], layer=row["layer"]) == row["value"]
    assert np.isnan(table.value(statistic="rank", step=77))


def test_columns_come_back_as_they_went_in(table, tmp_path):
    write_table(tmp_path / "table.parquet", table.columns())
    read = read_long_table(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(read.frame, table.frame)
    assert read.frame["layer"].dtype == np.int32
    write_table(tmp_path / "again.parquet", read.columns())
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "table.parquet").read_bytes()


def test_null_is_read_as_nan(tmp_path):
    write_table(tmp_path / "table.parquet",
                {"step": [1, 2], "statistic": ["a", "a"], "value": [None, 2.0], "low": [None, None],
                                             "high": [1.0, None]})
    np.testing.assert_array_equal(read_long_table(tmp_path / "table.parquet").course(statistic="a"),
                                  [[np.nan, np.nan, 1], [2, np.nan, np.nan]])


def test_shared_columns_are_filled(table):
    whole = table.shared()
    assert list(whole) == [*SHARED, "seed"]
    assert set(whole["split"]) == {""} and whole["n"].eq(5).all()


def test_an_empty_table_has_its_columns_and_answers_with_nan():
    empty = LongTable.of_rows([], TYPES)
    assert list(empty.columns()) == list(TYPES)
    assert np.isnan(empty.grid([0], [1], statistic="rank")).all()
    assert empty.grid(statistic="rank").shape == (0, 0, 3)


def test_sorting_is_stable(table):
    assert [r for r in table.sorted("step").frame["layer"]] == [
        r["layer"] for r in sorted(rows_of(), key=lambda r: r["step"])]
