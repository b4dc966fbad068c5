"""params.yaml, the sections about layers: what is looked at, compared and extracted."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetrace.config.base import parse
from finetrace.config.hidden import HiddenSettings
from finetrace.errors import FinetraceError
from finetrace.study import parse_study
from finetrace.study.look import LENSES
from finetrace.study.plan import plan_of

ROOT = Path(__file__).parents[2]
FINE, OTHER = "micro-b_micro-sentiment_ft_s1", "micro-b_micro-sentiment_ft_s2"


def base(**changes: Any) -> dict[str, Any]:
    """The default study without what needs lenses that it no longer has."""
    return yaml.safe_load((ROOT / "studies/micro.yaml").read_text()) | {"comparisons": {}, "dynamics": {}} | changes


def place(key: str) -> str:
    return key.replace("_", "/")


@pytest.mark.parametrize("lens", [name for name, lens in LENSES.items() if "pre-training" not in lens.of])
def test_what_a_lens_looks_at_are_trajectories_of_the_study(lens: str) -> None:
    study = parse_study(base(look={lens: place(FINE)}), "x")
    assert list(study.looked[lens]) == [place(FINE)]
    for wrong, message in (
            (place(OTHER), f"'{place(OTHER)}' matches no place; nearest: .*{place(FINE)}"),
            (FINE, f"'{FINE}' matches no place; did you mean '{place(FINE)}'"),
            ("micro-a/pretrain", "'micro-a/pretrain' means only micro-a/pretrain, which cannot stand here; there are: "
                                 "")):
        with pytest.raises(FinetraceError, match=f"params.yaml: look.{lens}: {message}"):
            parse_study(base(look={lens: wrong}), "params.yaml")


def test_comparisons_are_of_trajectories_on_one_task() -> None:
    one, other = "micro-a/micro-sentiment/ft/s1", "micro-a/micro-sentiment/ft/s2"
    for changes, message in (
            ({"comparisons": {"two": {"first": one, "second": place(OTHER)}}},
             rf"comparisons.two.second: '{place(OTHER)}' is not defined; known: .*{place(FINE)}"),
            ({"comparisons": {"two": {"first": one, "second": "micro-a/micro-nli/ft/s1"}}},
             r"comparisons.two: its trajectories are on different tasks \(micro-sentiment, micro-nli\)"),
            ({"comparisons": {"Two": {"first": one, "second": other}}}, "comparisons: 'Two' cannot name a folder"),
            ({"probes": {"by_model": {"nobody": {}}}},
             "probes.by_model.nobody: 'nobody' is not defined; known: micro-a")):
        with pytest.raises(FinetraceError, match=message):
            parse_study(base(**changes), "params.yaml")


def test_what_is_compared_need_not_be_looked_at() -> None:
    """Its hidden states are made for the comparison."""
    sides = {"first": "micro-a/micro-sentiment/ft/s1", "second": place(FINE)}
    items = plan_of(parse_study(base(look={}, comparisons={"two": sides}), "params.yaml"))
    assert [item.key for item in items if item.stage == "hidden"] == ["micro-a_micro-sentiment_ft_s1", FINE]


HIDDEN = "params.yaml: hidden"


@pytest.mark.parametrize(("changes", "message"), [
    ({"rows": {}}, "rows: names no split"),
    ({"rows": {"dev": 5}}, "rows: 'dev' is not a split; known: train, validation, test"),
    ({"rows": {"train": -1}}, "rows.train: -1 is negative; 0 takes the whole split"),
    ({"rows": {"train": 5}, "token_rows": {"test": 5}},
     "token_rows.test: tokens are kept of examples in `rows`; add test there"),
    ({"rows": {"test": 5}, "token_rows": {"test": 9}},
     "token_rows.test: 9 examples are more than rows.test: 5; lower it"),
    ({"rows": {"test": 5}, "token_rows": {"test": 0}},
     "token_rows.test: all examples are more than rows.test: 5; lower it"),
    ({"batch_tokens": 3}, "batch_tokens: 3 is less than 16"),
    ({"max_length": 2}, "max_length: 2 tokens leave no room"),
    ({"checkpoints": [-1]}, r"checkpoints: \[-1\] is not a list of steps"),
    ({"checkpoints": "some"}, "checkpoints"),
    ({"dtype": "float64"}, "dtype"),
    ({"vectors": ["pooler"]}, "vectors"),
])
def test_settings_of_hidden_states_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FinetraceError, match=message):
        parse(HiddenSettings, changes, HIDDEN)


def test_hidden_states_have_defaults_that_fit_the_rows() -> None:
    assert parse(HiddenSettings, {}, HIDDEN).token_rows == {"validation": 100}
    assert parse(HiddenSettings, {"rows": {"validation": 20}}, HIDDEN).token_rows == {"validation": 20}
    assert parse(HiddenSettings, {"rows": {"validation": 0}}, HIDDEN).token_rows == {"validation": 100}
    assert parse(HiddenSettings, {"rows": {"test": 20}}, HIDDEN).token_rows == {}
