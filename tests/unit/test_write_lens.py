"""How a lens writes its folder: what is measured, and figures that are drawn from the stored measurement alone."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.stage_project import project, quiet_logger
from tests.stages import ask, of_run

from finetrace.layout import Layout
from finetrace.pipeline import lens as lens_module
from finetrace.pipeline.lens import write_drawn, write_lens
from finetrace.pipeline.stage import AlreadyThere, open_stage
from finetrace.store.files import write_json, write_text
from finetrace.store.manifest import read_key, read_manifest
from finetrace.store.record import read_record

__all__ = ["project", "quiet_logger"]  # fixtures
PLACE, RUN = "micro-a/sst2/ft/s1", "micro-a_sst2_ft_s1"


class Lens:
    """A lens with counters; the figure shows what was measured and how it is drawn today."""

    def __init__(self, project: Path, monkeypatch: pytest.MonkeyPatch):
        self.project, self.measured, self.drawn, self.value = project, 0, 0, 1.5
        self.out = project / "outputs" / PLACE / "geometry"
        self.kept = project / ".finetrace" / "measured" / "geometry" / RUN
        monkeypatch.setattr("finetrace.figures.style.to_png", lambda figure: figure.encode())

    def run(self, *, code: str = "measure", draw: str = "draw", breaks: bool = False, **asked: Any) -> None:
        """Run its stage as its script does; draw: stands for the code that draws, and is seen in the figure."""
        ask(self.project, "geometry", RUN, code=code, draw=draw, **of_run(PLACE), **asked)
        stage = open_stage("geometry", RUN, Layout(self.project, self.project))

        def figures(record: dict[str, Any]) -> dict[str, Any]:
            self.drawn += 1
            if breaks:
                raise RuntimeError("a wrong colour")
            return {"main": f"{draw}: {record['value']}"}

        manifest = stage.manifest("lens", {}, outs=[self.out])
        write_lens(stage, self.out, manifest, lambda out: self.measure(out, manifest), figures)

    def measure(self, out: Path, manifest: Any) -> dict[str, Any]:
        self.measured += 1
        write_json(out / "metrics.json", {"value": self.value})
        manifest.facts = {"rows": 3}
        return {"value": self.value}

    def figure(self) -> str:
        return (self.out / "figures" / "main.png").read_text()

    def content(self) -> dict[str, bytes]:
        return {p.relative_to(self.out).as_posix(): p.read_bytes() for p in self.out.rglob("*") if p.is_file()}


@pytest.fixture
def lens(project: Path, monkeypatch: pytest.MonkeyPatch) -> Lens:
    one = Lens(project, monkeypatch)
    one.run()
    return one


def test_a_lens_writes_both_halves_with_their_manifests(lens: Lens) -> None:
    whole = read_manifest(lens.out, verify="content")
    assert (whole.kind, whole.facts, set(whole.files)) == ("lens", {"rows": 3}, {"measured.npz", "metrics.json"})
    drawn = read_manifest(lens.out / "figures", verify="content")
    assert (drawn.kind, drawn.stage, drawn.name, set(drawn.files)) == ("figures", "geometry", RUN, {"main.png"})
    assert read_record(lens.out / "measured.npz") == {"value": 1.5} and lens.figure() == "draw: 1.5"
    assert whole.code != drawn.code
    with pytest.raises(AlreadyThere):
        lens.run()
    assert (lens.measured, lens.drawn) == (1, 1)


@pytest.mark.parametrize("deleted", [False, True], ids=["by the driver", "by dvc, which deletes first"])
def test_a_changed_figure_measures_nothing(lens: Lens, deleted: bool) -> None:
    before, key = lens.content(), read_key(lens.out)
    if deleted:
        shutil.rmtree(lens.out)
    lens.run(draw="in red")
    assert (lens.measured, lens.drawn, lens.figure()) == (1, 2, "in red: 1.5")
    after = lens.content()
    assert {name for name in before if before[name] != after[name]} == {
        f"figures/{name}" for name in ("main.png", "manifest.json", "provenance.json", "cost.json")}
    assert read_key(lens.out) == key, "what reads it is not made again"
    with pytest.raises(AlreadyThere):
        lens.run(draw="in red")


def test_a_damaged_kept_measurement_is_measured_again(lens: Lens) -> None:
    for number, name in enumerate(("metrics.json", "measured.npz", "manifest.json", "provenance.json"), start=1):
        shutil.rmtree(lens.out)
        content = (lens.kept / name).read_bytes()
        (lens.kept / name).unlink()
        (lens.kept / name).write_bytes(content[:-2] + b"??")
        lens.run(draw=f"drawing {number}")
        assert lens.measured == number + 1 and lens.figure() == f"drawing {number}: 1.5"
        read_manifest(lens.out, verify="content")
        read_manifest(lens.kept, verify="content")
    shutil.rmtree(lens.out)
    shutil.rmtree(lens.kept)
    lens.run(draw="once more")
    assert lens.measured == 6


def test_another_measurement_is_made_and_takes_the_place_of_the_kept_one(lens: Lens) -> None:
    lens.value = 2.5
    for number, changed in enumerate(({"code": "other"}, {"code": "other", "study_seed": 1}), start=2):
        shutil.rmtree(lens.out)
        lens.run(**changed)
        assert lens.measured == number and lens.figure() == "draw: 2.5"
    shutil.rmtree(lens.out)
    lens.run()  # as at first
    assert lens.measured == 4
    shutil.rmtree(lens.out)
    lens.run(draw="in red")
    assert lens.measured == 4


def test_a_figure_that_fails_loses_no_measurement(lens: Lens) -> None:
    before = lens.content()
    lens.value = 2.5
    with pytest.raises(RuntimeError, match="colour"):
        lens.run(code="other", breaks=True)
    assert lens.content() == before and lens.measured == 2
    lens.run(code="other")
    assert lens.measured == 2 and lens.figure() == "draw: 2.5"


def test_a_lens_with_other_or_without_figures_is_not_there(lens: Lens) -> None:
    for damage in (lambda: (lens.out / "figures" / "main.png").write_text("DRAW: 1.5"),
                   lambda: (lens.out / "figures" / "manifest.json").unlink(),
                   lambda: shutil.rmtree(lens.out / "figures")):
        damage()
        lens.run()
        assert lens.measured == 1 and lens.figure() == "draw: 1.5"


def test_figures_beside_settings_are_a_half_of_their_own_too(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search's figures: what is trained with its settings must not depend on them, and they are drawn again."""
    monkeypatch.setattr("finetrace.figures.style.to_png", lambda figure: figure.encode())
    folder = project / "outputs" / "micro-a" / "sst2" / "ft" / "tune"

    def tune(draw: str) -> str:
        ask(project, "tune", "micro-a_sst2_ft", draw=draw)
        stage = open_stage("tune", "micro-a_sst2_ft", Layout(project, project))
        manifest = stage.manifest("settings", {}, outs=[folder])
        with stage.output(folder, manifest) as out:
            write_text(out / "best.yaml", "train: {}\n")
            write_drawn(stage, out, manifest, {"history": draw})
        return read_key(folder)

    first = tune("in blue")
    with pytest.raises(AlreadyThere):
        tune("in blue")
    assert tune("in red") == first
    assert (folder / "figures" / "history.png").read_text() == "in red"


def test_figures_are_drawn_from_what_is_read_back(lens: Lens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens_module, "read_record", lambda path,
                        types: {"value": read_record(path, types)["value"] * 2})
    lens.run(draw="in red")
    assert lens.figure() == "in red: 3.0"
