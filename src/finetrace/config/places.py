"""Checks across the sections on learning dynamics: every place, task, corpus and fact set that they name must exist."""

from collections.abc import Iterable
from typing import Any

from finetrace.config.base import require
from finetrace.layout import is_slug


def check_places(study: Any, tasks: Iterable[str]) -> None:
    """Raises ValueError naming section, entry, key and what is known.

    study: a Study whose other sections are already checked;  tasks: names of its tasks.
    """
    tasks = list(tasks)
    facts, texts = [*study.facts, *study.fact_files], ["world", *study.corpora, *tasks]
    places = [f"{name}/pretrain" for name, entry in study.pretrain.items() if entry.steps]
    places += [f"{name}/pretrain" for name in study.series] + [f"{name}/adapt" for name in study.adapt]
    masked = list(places)
    places += [key.replace("_", "/") for key in study.trajectories]
    _check_names(study, tasks, facts)

    def known(where: str, name: str, names: Iterable[str]) -> None:
        names = list(names)
        require(name in names, f"{where}: {name!r} is not defined; known: {', '.join(names) or 'none'}")

    for name, entry in study.pretrain.items():
        known(f"pretrain.{name}.corpus", entry.corpus, texts)
    for name, entry in study.adapt.items():
        known(f"adapt.{name}.start", entry.start, [p for p in places if p != f"{name}/adapt"])
        known(f"adapt.{name}.corpus", entry.corpus, texts)
    for section in ("edge_probes", "cloze_probes"):
        seen: dict[str, str] = {}
        for name, entry in getattr(study, section).items():
            known(f"{section}.{name}.trajectory", entry.trajectory, places)
            other = seen.get(entry.trajectory)
            require(other is None, f"{section}.{name}: looks at {entry.trajectory}, as {other} does; remove one")
            seen[entry.trajectory] = name
    for name, entry in study.fact_files.items():
        require(not entry.held_out or any(corpus.held_out >= entry.held_out for corpus in study.corpora.values()),
                f"fact_files.{name}.held_out: no corpus leaves out the sentences of {entry.held_out:g} of the facts; give the "
                "entry of `corpora` that a model is trained on the same held_out, or remove this one")
    for name, entry in study.cloze_probes.items():
        known(f"cloze_probes.{name}.facts", entry.facts, facts)
        known(f"cloze_probes.{name}.corpus", entry.corpus, texts)
    for name in study.edges.tasks:
        known("edges.tasks", name, tasks)
    require(not study.edge_probes or bool(study.edges.tasks), "edges.tasks: is empty, but edge_probes names trajectories; name "
                                                              "tasks of words")
    for name, entry in study.downstream.items():
        known(f"downstream.{name}.trajectory", entry.trajectory, masked)
        known(f"downstream.{name}.task", entry.task, tasks)
    looked_at = {e.trajectory for section in (study.edge_probes, study.cloze_probes) for e in section.values()}
    for name, entry in study.dynamics.items():
        for key in ("original", "adapted", "control"):
            for place in getattr(entry, key):
                known(f"dynamics.{name}.{key}", place, sorted(looked_at))
        for other in entry.downstream:
            known(f"dynamics.{name}.downstream", other, study.downstream)


def _check_names(study: Any, tasks: list[str], facts: list[str]) -> None:
    """Names of folders: slugs, each used once among what lies in data/ and among models."""
    named = (("series", study.series), ("adapt", study.adapt), ("corpora", study.corpora), ("facts", study.facts),
             ("fact_files", study.fact_files), ("downstream", study.downstream), ("dynamics", study.dynamics))
    for section, entries in named:
        for name in entries:
            require(is_slug(name), f"{section}: {name!r} cannot name a folder; use lower-case letters, digits, dots, hyphens")
    in_data = [*tasks, *study.corpora, *facts, "world"]
    if twice := sorted({name for name in in_data if in_data.count(name) > 1}):
        raise ValueError(f"{twice[0]!r} names two of tasks, corpora, facts and fact_files, which all lie in data/; rename one")
    models = [*study.pretrain, *study.series, *study.adapt, *study.models, *study.model_folders]
    require("downstream" not in models, "models: 'downstream' names a folder of finetrace itself; choose another name")
    if twice := sorted({name for name in models if models.count(name) > 1}):
        raise ValueError(f"a model's name, {twice[0]!r}, stands in two of pretrain, series, adapt, models, model_folders; rename "
                         "one")
