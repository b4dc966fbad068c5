"""Sections on learning dynamics: what they name must exist, and names do not meet in one folder."""

import pytest

from finetrace.errors import FinetraceError
from finetrace.study import parse_study

BASE = {
    "study": {"name": "demo"},
    "pretrain": {"m": {}, "raw": {"steps": 0}},
    "series": {"pub": {"id": "lab/seed-{step}k", "steps": [0, 20], "unit": 1000}},
    "tasks": {"t": {"source": "micro", "config": "micro-pos"}, "s": {"source": "micro", "config": "micro-sentiment"}},
    "facts": {"f": {"source": "world"}},
    "methods": {"ft": {}},
    "cells": {"m_s_ft": {"model": "m", "task": "s", "method": "ft"}},
    "trajectories": {"m_s_ft_s1": {"model": "m", "task": "s", "method": "ft", "seed": 1}},
    "adapt": {"m-s": {"start": "m/pretrain", "corpus": "s", "from_steps": [0, 10]}},
    "edges": {"tasks": ["t"]},
    "edge_probes": {"m": {"trajectory": "m/pretrain"}, "m-s": {"trajectory": "m-s/adapt"}, "ft": {"trajectory": "m/s/ft/s1"}},
    "cloze_probes": {"m": {"trajectory": "m/pretrain", "facts": "f"}},
    "downstream": {"m-s": {"trajectory": "m/pretrain", "task": "s"}},
    "dynamics": {"all": {"original": ["m/pretrain"], "adapted": ["m-s/adapt"], "downstream": ["m-s"]}},
}


def problem(**changes) -> str:
    content = {**BASE, **{k: ({**BASE[k], **v} if isinstance(v, dict) and k in BASE else v) for k, v in changes.items()}}
    with pytest.raises(FinetraceError) as caught:
        parse_study(content, "params.yaml")
    return str(caught.value)


def test_a_study_with_every_section():
    study = parse_study(BASE, "params.yaml")
    assert [name for name, _, _ in study.standalone()] == ["dynamics", "downstream"]
    assert study.adapt["m-s"].from_steps == [0, 10]


def test_adapted_models_can_be_fine_tuned():
    cell = {"model": "m-s", "task": "s", "method": "ft"}
    parse_study({**BASE, "cells": {"m-s_s_ft": cell}, "trajectories": {"m-s_s_ft_s1": {**cell, "seed": 1}},
                 "edge_probes": {}, "dynamics": {}}, "params.yaml")


@pytest.mark.parametrize(("changes", "words"), [
    ({"pretrain": {"m": {"corpus": "books"}}}, "pretrain.m.corpus: 'books' is not defined; known: world, t, s"),
    ({"adapt": {"x": {"start": "raw/pretrain", "corpus": "s"}}}, "adapt.x.start: 'raw/pretrain' is not defined"),
    ({"adapt": {"x": {"start": "x/adapt", "corpus": "s"}}}, "adapt.x.start: 'x/adapt' is not defined"),
    ({"adapt": {"x": {"start": "m", "corpus": "s"}}}, "start: 'm' is not a trajectory's folder in outputs"),
    ({"edge_probes": {"x": {"trajectory": "m/s/ft/s2"}}}, "edge_probes.x.trajectory: 'm/s/ft/s2' is not defined"),
    ({"edge_probes": {"x": {"trajectory": "m/pretrain"}}}, "edge_probes.x: looks at m/pretrain, as m does"),
    ({"edges": {"tasks": ["pos"]}}, "edges.tasks: 'pos' is not defined; known: t, s"),
    ({"edges": {"tasks": []}}, "edges.tasks: is empty"),
    ({"fact_files": {"l": {"path": "lama", "held_out": 0.2}}}, "fact_files.l.held_out: no corpus leaves out the sentences"),
    ({"cloze_probes": {"x": {"trajectory": "pub/pretrain", "facts": "g"}}}, "cloze_probes.x.facts: 'g' is not defined; known"),
    ({"downstream": {"x": {"trajectory": "m/s/ft/s1", "task": "s"}}}, "m/s/ft/s1 is a fine-tuning"),
    ({"downstream": {"x": {"trajectory": "m/pretrain", "task": "u"}}}, "downstream.x.task: 'u' is not defined"),
    ({"dynamics": {"x": {"original": ["pub/pretrain"]}}}, "dynamics.x.original: 'pub/pretrain' is not defined; known: m-s"),
    ({"dynamics": {"x": {"original": ["m/pretrain"], "downstream": ["n"]}}}, "dynamics.x.downstream: 'n' is not defined"),
    ({"dynamics": {"x": {"original": ["m/pretrain"], "adapted": ["m-s/adapt"] * 2}}}, "adapted: names 2 trajectories; give"),
    ({"facts": {"t": {"source": "world"}}}, "'t' names two of tasks, corpora, facts and fact_files"),
    ({"series": {"m": {"id": "lab/x"}}}, "a model's name, 'm', stands in two of pretrain, series"),
    ({"series": {"Pub": {"id": "lab/x"}}}, "series: 'Pub' cannot name a folder"),
    ({"series": {"x": {"id": "lab/x", "steps": [0, 1]}}}, "id: write {step} where the names of the checkpoints differ"),
    ({"series": {"x": {"id": "lab/{step}", "steps": [3, 1]}}}, "steps: [3, 1] is not an ascending list"),
])
def test_what_is_wrong_is_named(changes, words):
    assert words in problem(**changes)
