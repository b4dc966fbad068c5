"""Sections on learning dynamics: what they name must exist, and names do not meet in one folder."""

from typing import Any

import pytest

from finetrace.errors import FinetraceError
from finetrace.study import parse_study
from finetrace.study.plan import plan_of

BASE: dict[str, Any] = {
    "study": {"name": "demo"},
    "pretrain": {"m": {}, "raw": {"steps": 0}},
    "series": {"pub": {"id": "lab/seed-{step}k", "steps": [0, 20], "unit": 1000}},
    "tasks": {"t": {"source": "micro", "config": "micro-pos"}, "s": {"source": "micro", "config": "micro-sentiment"}},
    "facts": {"f": {"source": "world"}},
    "runs": [{"model": "m", "task": "s"}],
    "look": {"edges": ["m/pretrain", "m-s/adapt", "m/s/ft/s1"], "cloze": "{m,m-s}/*"},
    "adapt": {"m-s": {"start": "m/pretrain", "corpus": "s", "from_steps": [0, 10]}},
    "edges": {"tasks": ["t"]},
    "downstream": {"m-s": {"trajectory": "m/pretrain", "task": "s"}},
    "dynamics": {"all": {"original": ["m/pretrain"], "adapted": ["m-s/adapt"], "downstream": ["m-s"]}},
}


def problem(**changes: Any) -> str:
    """What is said about BASE with entries added to its sections, or replaced there."""
    content = BASE | {k: {**BASE[k], **v} if isinstance(v, dict) and k in BASE else v for k, v in changes.items()}
    with pytest.raises(FinetraceError) as caught:
        parse_study(content, "params.yaml")
    return str(caught.value)


def test_a_study_with_every_section() -> None:
    study = parse_study(BASE, "params.yaml")
    assert [name for name, _, _ in study.standalone()] == ["dynamics", "downstream"]
    assert study.adapt["m-s"].from_steps == [0, 10]
    assert list(study.looked["edges"]) == ["m/pretrain", "m-s/adapt", "m/s/ft/s1"]
    assert study.looked["cloze"]["m-s/adapt"].facts == "f"


def test_adapted_models_can_be_fine_tuned() -> None:
    study = parse_study({**BASE, "runs": [{"model": "m-s", "task": "s"}], "look": {}, "dynamics": {}}, "params.yaml")
    assert list(study.trajectories) == ["m-s_s_ft_s1"]


@pytest.mark.parametrize(("changes", "words"), [
    ({"pretrain": {"m": {"corpus": "books"}}}, "pretrain.m.corpus: 'books' is not defined; known: world, t, s"),
    ({"adapt": {"x": {"start": "raw/pretrain", "corpus": "s"}}}, "adapt.x.start: 'raw/pretrain' is not defined"),
    ({"adapt": {"x": {"start": "x/adapt", "corpus": "s"}}}, "adapt.x.start: 'x/adapt' is not defined"),
    ({"adapt": {"x": {"start": "m", "corpus": "s"}}}, "start: 'm' is not a trajectory's folder in outputs"),
    ({"look": {"edges": "m/s/ft/s2"}}, "look.edges: 'm/s/ft/s2' matches no place; nearest: m/s/ft/s1"),
    ({"look": {"edges": "raw/pretrain"}}, "look.edges: 'raw/pretrain' matches no place; nearest: m/pretrain"),
    ({"edges": {"tasks": ["pos"]}}, "edges.tasks, at m/pretrain: 'pos' is not defined; known: t, s"),
    ({"look": {"edges": {"at": "all", "tasks": ["pos"]}}},
     "edges.tasks, at m/pretrain: 'pos' is not defined; known: t"),
    ({"edges": {"tasks": []}}, "edges.tasks: is empty"),
    ({"fact_files": {"l": {"path": "lama", "held_out": 0.2}}}, "fact_files.l.held_out: no corpus leaves out the sente"),
    ({"cloze": {"facts": "g"}}, "cloze.facts, at m/pretrain: 'g' is not defined; known: f"),
    ({"look": {"cloze": {"at": "pub/pretrain", "facts": "g"}}}, "cloze.facts, at pub/pretrain: 'g' is not defined"),
    ({"cloze": {"corpus": "g"}}, "cloze.corpus, at m/pretrain: 'g' is not defined; known: world, t, s"),
    ({"downstream": {"x": {"trajectory": "m/s/ft/s1", "task": "s"}}}, "m/s/ft/s1 is a fine-tuning"),
    ({"downstream": {"x": {"trajectory": "raw/pretrain", "task": "s"}}}, "x.trajectory: 'raw/pretrain' is not defined"),
    ({"downstream": {"x": {"trajectory": "m/pretrain", "task": "u"}}}, "downstream.x.task: 'u' is not defined"),
    ({"dynamics": {"x": {"original": ["pub/pretrain"]}}},
     "dynamics.x: edges does not look at pub/pretrain; add it to look.edges, or leave edges out of dynamics.x.sources; "
     "edges looks at m/pretrain, m-s/adapt, m/s/ft/s1"),
    ({"look": {"cloze": "m/pretrain"}}, "dynamics.all: cloze does not look at m-s/adapt; add it to look.cloze"),
    ({"dynamics": {"x": {"original": ["m/pretrain"], "downstream": ["n"]}}}, "dynamics.x.downstream: 'n' is not def"),
    ({"dynamics": {"x": {"original": ["m/pretrain"], "adapted": ["m-s/adapt"] * 2}}}, "adapted: names 2 trajectories;"),
    ({"facts": {"t": {"source": "world"}}},
     "'t' names two of tasks, task_files, corpora, facts, fact_files, minimal_pairs, minimal_pair_files, which all"),
    ({"series": {"m": {"id": "lab/x"}}}, "'m' names two of pretrain, series, adapt, models, model_folders"),
    ({"series": {"Pub": {"id": "lab/x"}}}, "series: 'Pub' cannot name a folder"),
    ({"series": {"x": {"id": "lab/x", "steps": [0, 1]}}}, "id: write {step} where the names of the checkpoints differ"),
    ({"series": {"x": {"id": "lab/{step}", "steps": [3, 1]}}}, "steps: [3, 1] is not an ascending list"),
])
def test_what_is_wrong_is_named(changes: dict[str, Any], words: str) -> None:
    assert words in problem(**changes)


def test_a_source_that_dynamics_leaves_out_need_not_look_there() -> None:
    look = {"edges": ["m/pretrain", "m-s/adapt"]}
    one = {"original": ["m/pretrain"], "adapted": ["m-s/adapt"], "sources": ["edges"]}
    study = parse_study(BASE | {"look": look, "dynamics": {"all": one}}, "params.yaml")
    assert study.dynamics["all"].sources == ("edges",)


PAIRS: dict[str, Any] = {
    "minimal_pairs": {"grammar": {"source": "world"}},
    "dynamics": {"all": {"original": ["m/pretrain"], "adapted": ["m-s/adapt"], "sources": ["edges", "pairs"]}},
}


def test_pairs_may_look_at_the_original_alone() -> None:
    for places, read in ((["m/pretrain"], 1), (["m/pretrain", "m-s/adapt"], 2)):
        study = parse_study(BASE | PAIRS | {"look": BASE["look"] | {"pairs": places}}, "params.yaml")
        paths = [item.paths["from"] for item in plan_of(study) if item.key.startswith("dynamics-all--")]
        assert [path for path in paths if "/pairs/" in path] == [f"outputs/{p}/pairs/manifest.json" for p in places]
        assert len(paths) == 2 + read
    assert "dynamics.all: pairs does not look at m/pretrain; add it to look.pairs" in problem(
        **PAIRS, look={"pairs": "m-s/adapt"})
    two = PAIRS["dynamics"]["all"] | {"original": ["m/pretrain", "m/s/ft/s1"], "adapted": ["m-s/adapt", "pub/pretrain"]}
    told = problem(**PAIRS | {"dynamics": {"all": {**two, "sources": ["pairs"]}}},
                   look={"pairs": ["m/pretrain", "m/s/ft/s1", "m-s/adapt"]})
    assert "dynamics.all: pairs does not look at pub/pretrain" in told
