"""`runs` and `look`: a run is said once, lenses choose places by patterns, and what is wrong is told with the
nearest names."""

from typing import Any

import pytest

from finetrace.errors import FinetraceError
from finetrace.study import Study, parse_study
from finetrace.study.look import CHEAP, GROUPS, LENSES
from finetrace.study.patterns import alternatives, matches, select
from finetrace.study.plan import plan_of

BASE: dict[str, Any] = {
    "study": {"name": "demo"},
    "pretrain": {"a": {}, "b": {}, "random": {"steps": 0}},
    "adapt": {"a-more": {"start": "a/pretrain", "corpus": "world"}},
    "models": {"bert-v1.5": {"id": "x/y"}},
    "tasks": {
        "senti": {"source": "micro", "config": "micro-sentiment"},
        "words": {"source": "micro", "config": "micro-pos"},
    },
    "facts": {"micro-facts": {}},
    "runs": [
        {"model": ["a", "random"], "task": "senti", "method": ["ft", "lora"], "seed": [1, 2]},
        {"model": "bert-v1.5", "task": ["senti", "words"]},
    ],
}


def study(**changes: Any) -> Study:
    return parse_study({**BASE, **changes}, "params.yaml")


def refusal(**changes: Any) -> str:
    with pytest.raises(FinetraceError) as caught:
        plan_of(study(**changes))
    return str(caught.value)


def looked(lens: str, **changes: Any) -> list[str]:
    return list(study(**changes).looked.get(lens, {}))


def test_lists_multiply_and_seed_is_one_unless_said():
    assert [run.place for run in study().trajectories.values()] == [
        "a/senti/ft/s1",
        "a/senti/ft/s2",
        "a/senti/lora/s1",
        "a/senti/lora/s2",
        "random/senti/ft/s1",
        "random/senti/ft/s2",
        "random/senti/lora/s1",
        "random/senti/lora/s2",
        "bert-v1.5/senti/ft/s1",
        "bert-v1.5/words/ft/s1",
    ]


def test_the_order_of_runs_does_not_depend_on_how_they_are_said():
    one = study(
        runs=[{"model": "a", "task": "senti", "method": ["ft", "lora"]}, {"model": "a", "task": "senti", "seed": 2}]
    )
    other = study(
        runs=[{"model": "a", "task": "senti", "seed": [1, 2]}, {"model": "a", "task": "senti", "method": "lora"}]
    )
    assert list(one.trajectories) == list(other.trajectories) == ["a_senti_ft_s1", "a_senti_ft_s2", "a_senti_lora_s1"]


def test_a_run_that_is_said_twice_is_refused():
    assert "a/senti/ft/s1 stands in runs.0 as well" in refusal(
        runs=[{"model": "a", "task": "senti"}, {"model": ["a"], "task": "senti"}]
    )


@pytest.mark.parametrize(
    ("run", "told"),
    [
        ({"model": "aa", "task": "senti"}, "runs.0.model: 'aa' is not defined; known:"),
        ({"model": "a", "task": "sent"}, "runs.0.task: 'sent' is not defined; known:"),
        ({"model": "a", "task": "senti", "method": "fit"}, "runs.0.method: 'fit' is not defined; known: ft"),
        ({"model": [], "task": "senti"}, "names nothing"),
        ({"model": "a", "task": "senti", "seed": -1}, "negative"),
        ({"model": "a", "tasks": "senti"}, "did you mean 'task'?"),
    ],
)
def test_wrong_runs(run: dict[str, Any], told: str):
    assert told in refusal(runs=[run])


def test_methods_are_there_by_their_kind_and_can_be_changed():
    one = study(methods={"lora": {"kind": "lora", "train": {"lora_rank": 4}}, "mine": {"kind": "lp-ft"}})
    assert {"ft", "lp", "lp-ft", "lora", "lp-lora", "mine"} == set(one.methods)
    assert one.train_settings(one.cells["a_senti_lora"]).lora_rank == 4


def test_without_look_the_cheap_lenses_look_at_every_fine_tuning():
    one = study()
    assert set(one.looked) == set(CHEAP)
    assert all(list(places) == [run.place for run in one.trajectories.values()] for places in one.looked.values())


def test_without_look_nothing_looks_at_masked_word_trainings_alone():
    assert study(runs=[]).looked == {}


def test_with_look_only_the_lenses_that_it_names_look():
    assert set(study(look={"geometry": "a/senti/ft/s1"}).looked) == {"geometry"}
    assert study(look={}).looked == {}
    assert study(look={"geometry": "none"}).looked == {}


@pytest.mark.parametrize(
    ("patterns", "places"),
    [
        (
            "all",
            [
                "a/senti/ft/s1",
                "a/senti/ft/s2",
                "a/senti/lora/s1",
                "a/senti/lora/s2",
                "random/senti/ft/s1",
                "random/senti/ft/s2",
                "random/senti/lora/s1",
                "random/senti/lora/s2",
                "bert-v1.5/senti/ft/s1",
                "bert-v1.5/words/ft/s1",
            ],
        ),
        ("a/*/ft/*", ["a/senti/ft/s1", "a/senti/ft/s2"]),
        ("{a,random}/senti/lora/s2", ["a/senti/lora/s2", "random/senti/lora/s2"]),
        ("bert-v1.5/**", ["bert-v1.5/senti/ft/s1", "bert-v1.5/words/ft/s1"]),
        (["*/words/*/*", "a/senti/ft/s1"], ["a/senti/ft/s1", "bert-v1.5/words/ft/s1"]),
        (["a/**", "!*/*/lora/*"], ["a/senti/ft/s1", "a/senti/ft/s2"]),
        (["!{a,random}/**"], ["bert-v1.5/senti/ft/s1", "bert-v1.5/words/ft/s1"]),
    ],
)
def test_patterns_over_places(patterns: Any, places: list[str]):
    assert looked("geometry", look={"geometry": patterns}) == places


def test_lenses_of_masked_words_choose_by_the_same_patterns():
    look = {"cloze": ["a/pretrain", "*/adapt", "a/senti/ft/s1"], "edges": "all"}
    assert looked("cloze", look=look, edges={"tasks": ["words"]}) == ["a/pretrain", "a-more/adapt", "a/senti/ft/s1"]
    assert looked("edges", look=look, edges={"tasks": ["words"]})[:3] == ["a/pretrain", "b/pretrain", "a-more/adapt"]


def test_a_group_names_several_lenses_and_so_do_commas():
    assert set(study(look={"layers": "a/senti/ft/s1"}).looked) == set(GROUPS["layers"])
    assert set(study(look={"infodynamics, answers": "all"}).looked) == {"infodynamics", *GROUPS["answers"]}


def test_what_a_lens_builds_on_looks_there_as_well():
    assert set(study(look={"convergence": "a/senti/ft/s1"}).looked) == {"geometry", "probes", "convergence"}


def test_a_place_can_have_settings_of_its_own():
    places = study(
        look={"kernel": ["a/senti/*/s1", {"at": "a/senti/lora/s1", "rows": {"train": 5, "eval": 5}}]}
    ).looked["kernel"]
    assert places["a/senti/lora/s1"].rows == {"train": 5, "eval": 5} and places["a/senti/ft/s1"].rows == {
        "train": 250,
        "eval": 250,
    }


@pytest.mark.parametrize(
    ("look", "told"),
    [
        ({"geometri": "all"}, "'geometri' is neither a lens nor a group; nearest: geometry"),
        ({"geometry": "a/*/ftt/*"}, "look.geometry: 'a/*/ftt/*' matches no place; nearest: a/senti/ft/s1"),
        ({"geometry": "a_senti_ft_s1"}, "did you mean 'a/senti/ft/s1'?"),
        ({"geometry": "a/pretrain"}, "means only a/pretrain, which cannot stand here"),
        ({"geometry": {"places": "all"}}, "nor a mapping with `at`"),
        ({"geometry": {"at": float("inf")}}, "look.geometry.at: inf is neither a pattern"),
        ({"geometry": [{"at": ["all", 3]}]}, "look.geometry.at: ['all', 3] is neither a pattern"),
        (
            {"kernel": {"at": "all", "rowz": 1}},
            "look.kernel at a/senti/ft/s1: unknown key 'rowz'; did you mean 'rows'?",
        ),
        ({"layers": {"at": "all", "split": "test"}}, "settings can be changed of one lens at a time"),
        ({"edges": "all"}, "edges.tasks: is empty"),
    ],
)
def test_wrong_looks(look: dict[str, Any], told: str):
    assert told in refusal(look=look)


def test_what_lenses_read_is_recorded():
    told = refusal(record={"checkpoints": "none"})
    assert "record.checkpoints: none keeps no weights" in told and "geometry" in told and "infodynamics," not in told
    assert looked("infodynamics", record={"checkpoints": "none"}, look={"infodynamics": "all"})
    assert looked("geometry", record={"checkpoints": {"steps": [0]}})
    assert "record.signals: false" in refusal(record={"signals": False})
    assert looked("geometry", record={"signals": False}, look={"geometry": "all"})


def test_one_fact_set_is_meant_where_there_is_one():
    one = study(look={"cloze": "a/pretrain"})
    assert one.looked["cloze"]["a/pretrain"].facts == "micro-facts"
    assert "cloze.facts: is not given" in refusal(look={"cloze": "a/pretrain"}, facts={"one": {}, "two": {}})


def test_old_sections_are_refused_with_the_new_place():
    assert "trajectories: is no longer a section; say it in `runs`" in refusal(trajectories={})
    assert "`look.edges`" in refusal(edge_probes={})


@pytest.mark.parametrize("name", ["", "  ", "..", "~", "🙂"])
def test_a_study_needs_a_name_that_can_name_an_experiment(name: str):
    assert "name" in refusal(study={"name": name})


def test_an_absent_section_means_its_defaults():
    smallest = parse_study(
        {
            "study": {"name": "mine"},
            "models": {"m": {"id": "x/y"}},
            "task_files": {"t": {"path": "reviews.csv", "text": ["text"], "label": "stars"}},
            "runs": [{"model": "m", "task": "t"}],
        },
        "params.yaml",
    )
    assert {item.stage for item in plan_of(smallest)} == {
        "model",
        "data-files",
        "train",
        "hidden",
        "predictions",
        "inputs",
        *CHEAP,
    }


def test_numbers_that_stand_for_names_are_texts():
    one = study(tasks={2024: {"source": "micro", "config": "micro-sentiment"}}, runs=[{"model": "a", "task": "2024"}])
    assert list(one.tasks) == ["2024"]


def test_names_with_dots_are_items_of_their_own():
    keys = [item.key for item in plan_of(study()) if item.stage in ("model", "train")]
    assert "bert-v1.5" in keys and "bert-v1.5_senti_ft_s1" in keys


def test_every_lens_and_group_is_known_by_its_stage():
    assert set(LENSES) >= {lens for group in GROUPS.values() for lens in group} | set(CHEAP)
    assert not set(LENSES) & set(GROUPS)


def test_alternatives_and_matches():
    assert alternatives("{a,b}/x/{1,2}") == ["a/x/1", "a/x/2", "b/x/1", "b/x/2"]
    assert matches("a/b/c", "**") and matches("a/b/c", "a/**/c") and matches("a/c", "a/**/c")
    assert not matches("a/b/c", "a/*") and not matches("a/b", "A/b")
    assert select("all", ["x"], "here") == ["x"]


def test_the_order_in_which_a_search_names_its_dimensions_reaches_its_settings(tmp_path):
    import json

    from finetrace.layout import Layout
    from finetrace.pipeline.compile import write_settings
    from finetrace.store.manifest import make_key

    (tmp_path / "pipelines").mkdir()
    (tmp_path / "src/finetrace").mkdir(parents=True)
    asked = []
    for order in (("warmup", "beta2"), ("beta2", "warmup")):
        space = {name: {"low": 0.1, "high": 0.2} for name in order}
        one = study(methods={"tuned": {"settings": "tuned"}}, tune={"space": space},
                    runs=[{"model": "a", "task": "senti", "method": "tuned"}])
        write_settings(Layout(tmp_path, tmp_path), one)
        asked.append(json.loads((tmp_path / "settings/tune/a_senti_tuned.json").read_text()))
        assert list(asked[-1]["tune"]["space"]) == list(order)
    assert make_key("tune", asked[0], {}, "") != make_key("tune", asked[1], {}, "")
