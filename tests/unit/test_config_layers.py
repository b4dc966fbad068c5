"""params.yaml, the sections about layers: what is inspected, compared and extracted."""

from pathlib import Path

import pytest
import yaml

from finetrace.config import LOOKED_AT, parse_study
from finetrace.config.base import parse
from finetrace.config.hidden import HiddenSettings
from finetrace.errors import FinetraceError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("section", LOOKED_AT)
def test_what_a_group_of_lenses_looks_at_are_trajectories_of_the_study(section):
    base = yaml.safe_load((ROOT / "params.yaml").read_text())
    key = "micro-b_micro-sentiment_ft_s1"
    line = base["trajectories"][key]
    assert key in getattr(parse_study(base | {section: {key: line}, "comparisons": {}}, "x"), section)
    for wrong, message in (({key: line | {"seed": 2}}, f"{section}.{key}: is not the trajectory of that name; copy its line"),
                           ({"other": line}, f"{section}.other: is not the trajectory of that name")):
        with pytest.raises(FinetraceError, match=message):
            parse_study(base | {section: wrong, "comparisons": {}}, "params.yaml")


def test_comparisons_are_of_inspected_trajectories_on_one_task():
    base = yaml.safe_load((ROOT / "params.yaml").read_text())
    for changes, message in (
            ({"comparisons": {"two": {"first": "micro-a/micro-sentiment/ft/s1", "second": "micro-b/micro-sentiment/ft/s1"}}},
             "comparisons.two.second: the trajectory micro-b_micro-sentiment_ft_s1 is not in inspected"),
            ({"comparisons": {"two": {"first": "micro-a/micro-sentiment/ft/s1", "second": "micro-a/micro-nli/ft/s1"}}},
             r"comparisons.two: its trajectories are on different tasks \(micro-sentiment, micro-nli\)"),
            ({"comparisons": {"Two": {"first": "micro-a/micro-sentiment/ft/s1", "second": "micro-a/micro-sentiment/ft/s2"}}},
             "comparisons: 'Two' cannot name a folder"),
            ({"probes": {"by_model": {"nobody": {}}}}, "probes.by_model.nobody: is not a model; known: micro-a")):
        with pytest.raises(FinetraceError, match=message):
            parse_study(base | changes, "params.yaml")


HIDDEN = "params.yaml: hidden"


@pytest.mark.parametrize(("changes", "message"), [
    ({"rows": {}}, "rows: names no split"),
    ({"rows": {"dev": 5}}, "rows: 'dev' is not a split; known: train, validation, test"),
    ({"rows": {"train": -1}}, "rows.train: -1 is negative; 0 takes the whole split"),
    ({"rows": {"train": 5}, "token_rows": {"test": 5}}, "token_rows.test: tokens are kept of examples in `rows`; add test there"),
    ({"rows": {"test": 5}, "token_rows": {"test": 9}}, "token_rows.test: 9 examples are more than rows.test: 5; lower it"),
    ({"rows": {"test": 5}, "token_rows": {"test": 0}}, "token_rows.test: all examples are more than rows.test: 5; lower it"),
    ({"batch_tokens": 3}, "batch_tokens: 3 is less than 16"),
    ({"max_length": 2}, "max_length: 2 tokens leave no room"),
    ({"checkpoints": [-1]}, r"checkpoints: \[-1\] is not a list of steps"),
    ({"checkpoints": "some"}, "checkpoints"),
    ({"dtype": "float64"}, "dtype"),
    ({"vectors": ["pooler"]}, "vectors"),
])
def test_settings_of_hidden_states_that_cannot_work_are_refused(changes, message):
    with pytest.raises(FinetraceError, match=message):
        parse(HiddenSettings, changes, HIDDEN)


def test_hidden_states_have_defaults_that_fit_the_rows():
    assert parse(HiddenSettings, {}, HIDDEN).token_rows == {"validation": 100}
    assert parse(HiddenSettings, {"rows": {"validation": 20}}, HIDDEN).token_rows == {"validation": 20}
    assert parse(HiddenSettings, {"rows": {"validation": 0}}, HIDDEN).token_rows == {"validation": 100}
    assert parse(HiddenSettings, {"rows": {"test": 20}}, HIDDEN).token_rows == {}
