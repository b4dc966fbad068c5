"""The atlas knows the masked-word trainings of a study, and MLflow gets a run for each."""

from pathlib import Path

import pytest
import yaml
from tests.outputs import make_lens, make_project, make_training

from finetrace.atlas.places import Place, collect_places
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.store.files import write_json
from finetrace.store.manifest import complete, read_manifest
from finetrace.study import Study, load_study
from finetrace.study.plan import last_settings
from finetrace.tracking.collect import collect


def places_of(layout: Layout, study: Study) -> list[Place]:
    """As the atlas's stage asks for them."""
    asked = last_settings(study)["atlas"]
    return collect_places(asked["masked"], asked["looked"], layout)


@pytest.fixture
def project(tmp_path: Path) -> tuple[Layout, Study]:
    """A pre-training that edges looked at, and an adaptation."""
    layout, _ = make_project(tmp_path)
    content = yaml.safe_load(layout.params.read_text())
    content["adapt"] = {"more": {"start": "micro-a/pretrain", "corpus": "micro-sentiment"}}
    content["tasks"]["micro-pos"] = {"source": "micro"}
    content |= {"look": {"edges": "micro-a/pretrain"}, "edges": {"tasks": ["micro-pos"]}}
    layout.params.write_text(yaml.safe_dump(content))
    make_training(layout.adapt("more"), "adapt", "more", 40, {"models/micro-a": "m" * 64}, probe=False)
    folder = layout.place("micro-a/pretrain") / "edges"
    make_lens(folder, "edges", "micro-a", 100)
    manifest = read_manifest(folder)
    write_json(folder / "metrics.json", {"pos/f1/full/last": 0.8, "dep/f1/full/last": 0.6, "pos/f1/full/first": None})
    complete(folder, manifest)
    return layout, load_study(layout.params)


def test_places_with_their_lenses(project: tuple[Layout, Study]) -> None:
    first, second = places_of(*project)
    assert (first.name, first.key, second.name) == ("micro-a/pretrain", "micro-a_pretrain", "more/adapt")
    edges = first.metrics["edges"]
    assert edges["mean_f1/last"] == pytest.approx(0.7) and "mean_f1/first" not in edges


def test_a_lens_that_does_not_look_there_is_left_out(project: tuple[Layout, Study]) -> None:
    layout, study = project
    make_lens(layout.adapt("more").parent / "edges", "edges", "more", 100)  # of an earlier study
    assert "edges" not in places_of(layout, study)[1].metrics


def test_a_missing_one_is_named(project: tuple[Layout, Study]) -> None:
    layout, study = project
    (layout.adapt("more") / "manifest.json").unlink()
    with pytest.raises(FinetraceError, match=r"more/adapt/trajectory: has no manifest\.json"):
        places_of(layout, study)


def test_each_becomes_a_run(project: tuple[Layout, Study]) -> None:
    records = {r.name: r for r in collect(*project).records}
    assert records["more_adapt"].kind == "adapt"
    assert records["edges@micro-a_pretrain"].parent == records["micro-a_pretrain"].identity
    assert {s.name for s in records["more_adapt"].load().series} & {"train/loss", "validation/loss"}
