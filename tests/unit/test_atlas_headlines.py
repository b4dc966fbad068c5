"""Headline metrics: every lens declares its own, and the tables of the atlas are made of them."""

import ast
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from tests.outputs import manifest

from finetrace.atlas import headlines
from finetrace.atlas.collect import Entry
from finetrace.atlas.columns import FINE_TUNINGS, MASKED_WORDS, Column, explanation, names_behind, number_of
from finetrace.atlas.places import Place
from finetrace.lenses.headline import DIRECTIONS, Enough, Headline, add_means, matching, value_of

LENSES = Path(__file__).parents[2] / "src/finetrace/lenses"
OF_LENS = headlines.OF_FINE_TUNINGS | headlines.OF_MASKED_WORDS
SETS = {"train", "validation", "test"}
"""Names of sets of examples, which come from the data."""
EVERY = [pytest.param(lens, headline, id=f"{lens} {headline.heading}")
         for lens, found in OF_LENS.items() for headline in found]
SAID = Headline("norm/layer-*/last", "norm", "nats", 2, "down", "how long vectors are")


@cache
def words_of_code(lens: str) -> set[str]:
    """Names and parts of texts in a lens's modules, without docstrings and without what it declares as headlines."""
    words: set[str] = set()
    for path in (LENSES / lens).rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree) if path.name != "headlines.py" else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                words |= set(re.findall(r"\w+", node.value))
            words |= {text for field in ("id", "attr", "arg", "name")
                      if isinstance(text := getattr(node, field, None), str)}
    return words


@pytest.mark.parametrize(("lens", "headline"), EVERY)
def test_a_headline_is_something_that_its_lens_writes(lens: str, headline: Headline) -> None:
    """By the words of the code; tests/pipeline/test_repro.py looks into the metrics of a finished study."""
    names = (headline.mean_of or headline.metric).split("|")
    wanted = {word for name in names for word in re.sub(r"layer-\*|\*", "", name).split("/") if word} - SETS
    parts = {word for word in wanted if word not in words_of_code(lens)}
    assert wanted and not {word for word in parts if not _joined(word, words_of_code(lens))}


def _joined(word: str, known: set[str]) -> bool:
    """Whether the code makes a word of two: `ece` and `_scaled`."""
    return any(word[:i] in known and word[i:] in known for i in range(1, len(word)) if word[i] == "_")


@pytest.mark.parametrize(("lens", "headline"), EVERY)
def test_a_headline_is_complete(lens: str, headline: Headline) -> None:
    assert headline.metric and headline.heading and headline.sentence and headline.digits >= 0
    assert headline.direction in DIRECTIONS and headline.unit in headline.explanation
    assert not headline.sentence.endswith(".") and len(headline.heading) <= 16


def test_every_headline_is_in_a_table() -> None:
    declared = {path.parent.name for path in LENSES.glob("*/headlines.py")}
    assert declared == set(OF_LENS) and declared
    columns = [column for column in (*FINE_TUNINGS, *MASKED_WORDS) if column.part != "trajectory"]
    assert columns == [(lens, headline) for lens, found in OF_LENS.items() for headline in found]


def test_a_lens_may_have_none() -> None:
    stages = {path.parent.name for path in LENSES.glob("*/stage.py")}
    assert set(OF_LENS) < stages and {"convergence", "comparison"} <= stages - set(OF_LENS)


def test_the_explanation_says_unit_and_direction() -> None:
    assert SAID.explanation == "how long vectors are (nats; lower is better)"
    assert replace(SAID, direction="up").explanation.endswith("(nats; higher is better)")
    assert replace(SAID, direction="").explanation == "how long vectors are (nats)"
    assert replace(SAID, direction="", unit="").explanation == "how long vectors are"


def test_it_says_how_many_examples_it_takes_and_warns_of_fewer() -> None:
    enough = Enough(56, "sentences", "rows")
    assert replace(SAID, enough=enough).explanation.endswith("lower is better; trust it from 56 sentences on)")
    assert enough.warning({"rows": 55}) == "looked at 55 sentences; what it does not find counts from 56 on"
    assert enough.warning({"rows": {"train": 100, "test": 20}}).startswith("looked at 20 sentences")
    assert not any(map(enough.warning, ({"rows": 56}, {"rows": {"train": 56}}, {"rows": {}}, {})))


def test_metrics_by_name_pattern_or_the_first_of_several() -> None:
    metrics = {"a/layer-01/last": 1.0, "a/layer-02/last": 2.0, "a/layer-02/first": 3.0, "b": 4.0}
    assert matching(metrics, "a/layer-*/last") == ["a/layer-01/last", "a/layer-02/last"]
    assert value_of(metrics, "a/layer-*/last") == 2 and value_of(metrics, "b") == 4
    assert value_of(metrics, "c/*/last|a/*/first") == 3 and value_of(metrics, "c") is None


def test_means_over_tasks_are_named_as_declared() -> None:
    metrics: dict[str, float] = {"pos/f1/full/last": 0.8, "dep/f1/full/last": 0.6, "pos/cog/last": 9.0}
    add_means(metrics, headlines.OF_MASKED_WORDS["edges"])
    assert metrics.pop("mean_f1/last") == pytest.approx(0.7) and len(metrics) == 3


def numbers(each: Entry | Place, columns: list[Column]) -> dict[str, float | None]:
    """Heading -> number."""
    return {column.headline.heading: number_of(each, column) for column in columns}


def test_the_numbers_of_a_fine_tuning() -> None:
    made = replace(manifest("trajectory", "train", "x"), facts={"metric": "matthews"})
    entry = Entry("m_t_ft_s1", "m", "t", "ft", 1, Path("x"), made, {
        "trajectory": {"validation/matthews": 0.25, "validation/accuracy": 0.5, "steps": 1200},
        "calibration": {"test/ece": 0.0625}, "hulls": {"clusters/layer-02/last": 4.0, "clusters/layer-01/last": 9.0}})
    found = numbers(entry, FINE_TUNINGS)
    assert [found[name] for name in ("validation", "accuracy", "steps", "ECE", "clusters, after", "slope")] == [
        0.25, 0.5, 1200, 0.0625, 4, None]


def test_where_test_is_not_predicted_validation_is_judged() -> None:
    made = replace(manifest("trajectory", "train", "x"), facts={"metric": "accuracy"})
    written = {"validation/ece": 0.25, "validation/ece_scaled": 0.125}
    entry = Entry("m_t_ft_s1", "m", "t", "ft", 1, Path("x"), made, {"calibration": written})
    found = numbers(entry, FINE_TUNINGS)
    assert found["ECE"] == 0.25 and found["ECE, scaled"] == 0.125


def test_what_is_said_of_an_accuracy_where_there_is_none() -> None:
    accuracy = next(column.headline for column in FINE_TUNINGS if column.headline.heading == "accuracy")
    scores = [{"target": "regression"}]
    assert explanation(accuracy, [{"target": "class"}, {}]) == accuracy.explanation
    assert explanation(accuracy, scores) == f"{accuracy.explanation}; of a regression: Pearson's correlation"
    assert explanation(SAID, scores) == SAID.explanation
    before = replace(SAID, sentence="length, pre-trained")
    assert explanation(before, [{"method_kind": "given"}]).endswith("; of given checkpoints: the first")
    assert explanation(before, scores) == before.explanation


def test_the_numbers_of_a_masked_word_training() -> None:
    metrics = {"trajectory": {"steps": 40.0}, "cloze": {"mean_p_at_1": 0.5}}
    place = Place("more/adapt", Path("x"), manifest("trajectory", "adapt", "x"), metrics)
    assert {value for value in numbers(place, MASKED_WORDS).values() if value is not None} == {40, 0.5}


def test_a_headline_number_is_rows_of_the_one_table() -> None:
    """One row, or those of which it is the mean; none where the number is not there."""
    metrics = {"a/f1/full/last": 0.5, "b/f1/full/last": 0.7, "c/f1/full/last": None, "norm/layer-01/last": 1.0,
               "norm/layer-02/last": 2.0, "validation/pearson": 0.9}
    made = replace(manifest("trajectory", "train", "x"), facts={"metric": "pearson"})
    place = Place("m/pretrain", Path(), made, {"edges": dict(metrics), "trajectory": dict(metrics)})
    mean = Headline("mean_f1/last", "words", "F1", 3, "up", "mean", mean_of="*/f1/full/last")
    for headline, names in ((mean, ["a/f1/full/last", "b/f1/full/last"]), (SAID, ["norm/layer-02/last"]),
                            (replace(SAID, metric="absent|norm/layer-01/last"), ["norm/layer-01/last"]),
                            (replace(SAID, metric="absent"), [])):
        assert names_behind(place, Column("edges", headline)) == names
    task_metric = replace(SAID, metric="validation/TASK-METRIC")
    assert names_behind(place, Column("trajectory", task_metric)) == ["validation/pearson"]
    assert names_behind(place, Column("absent", SAID)) == []
