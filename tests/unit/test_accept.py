"""Accepted code: results of other code stand, are named as such, and only as long as the code is the accepted one."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.code_project import RANK, SHARED, STYLE, code_project, edit
from tests.stages import stage_of

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.pipeline.accept import accept
from finetrace.pipeline.accepted import NAME, accepted
from finetrace.pipeline.compile import compile_study
from finetrace.store.files import write_text

RUN = "micro-a_micro-sentiment_ft_s1"
SCRIPTS = ("cross_task", "geometry")


def code(layout: Layout, script: str) -> bytes:
    return (layout.settings / "code" / f"{script}.json").read_bytes()


def record(layout: Layout, *, cached: bool = True) -> None:
    """What `finetrace repro` leaves: hashes in dvc.lock;  cached: and the files in DVC's cache."""
    lines = ["schema: '2.0'", "stages:"]
    for script in SCRIPTS:
        content = code(layout, script)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        lines += [f"  {script.replace('_', '-')}@x:", f"    cmd: python pipelines/{script}.py x", "    deps:",
                  f"    - path: settings/code/{script}.json", "      hash: md5", f"      md5: {md5}",
                  f"      size: {len(content)}"]
        if cached:
            write_text(layout.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:], content.decode())
    write_text(layout.root / "dvc.lock", "\n".join(lines) + "\n")


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    """A project with results of both scripts."""
    layout = code_project(tmp_path)
    compile_study(layout)
    record(layout)
    return layout


def asked(layout: Layout, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((layout.settings / stage / f"{stage}.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("compiled", [False, True], ids=["at once", "after finetrace plan"])
def test_results_stand_as_long_as_the_code_is_the_accepted_one(project: Layout, compiled: bool) -> None:
    before = code(project, "geometry")
    edit(project.root, RANK, "def rank(x)", "def rank(value, x=0)")
    if compiled:
        compile_study(project)
        assert code(project, "geometry") != before
    lines = accept(project, ["geometry"], "a parameter more, which nobody gives")
    assert lines == ["geometry: its results stand, although these changed: finetrace.lenses.rank"]
    assert code(project, "geometry") == before, "so DVC sees no change"
    compile_study(project)
    assert code(project, "geometry") == before

    edit(project.root, RANK, "value, x=0", "value, x=1")
    compile_study(project)
    assert code(project, "geometry") != before, "any further change ends it"
    edit(project.root, RANK, "value, x=1", "value, x=0")
    compile_study(project)
    assert code(project, "geometry") == before
    (project.root / NAME).unlink()
    compile_study(project)
    assert code(project, "geometry") != before


def test_what_is_made_meanwhile_and_what_shows_it_say_why(project: Layout) -> None:
    assert stage_of(project.root, "geometry", RUN).accepted == "" and "accepted" not in asked(project, "atlas")
    before = asked(project, "atlas")
    edit(project.root, RANK, "def rank(x)", "def rank(y)")
    accept(project, ["geometry"], "a rename")
    assert stage_of(project.root, "geometry", RUN).accepted == "a rename"
    assert asked(project, "atlas") == before | {"accepted": {"geometry": "a rename"}}
    assert asked(project, "publish")["accepted"] == {"geometry": "a rename"}
    edit(project.root, RANK, "def rank(y)", "def rank(z)")
    compile_study(project)
    assert stage_of(project.root, "geometry", RUN).accepted == ""


def test_all_are_those_whose_code_changed(project: Layout) -> None:
    edit(project.root, RANK, "def rank(x)", "def rank(y)")
    assert [line.split(":")[0] for line in accept(project, ["all"], "a rename")] == ["geometry"]
    assert set(accepted(project).entries) == {"geometry"}


def test_one_change_can_concern_several(project: Layout) -> None:
    before = [code(project, script) for script in SCRIPTS]
    edit(project.root, SHARED, "UNIT = 1", "UNIT = 2 - 1")
    lines = accept(project, ["geometry", "cross-task", "geometry"], "the same number")
    assert lines == [f"{script}: its results stand, although these changed: finetrace.shared" for script in
                     ("geometry", "cross_task")]
    assert [code(project, script) for script in SCRIPTS] == before


def test_a_changed_drawing_can_be_accepted(project: Layout) -> None:
    before = code(project, "geometry")
    edit(project.root, STYLE, "BLUE = 'blue'", "BLUE = 'b'")
    accept(project, ["geometry"], "matplotlib's other word for it")
    assert code(project, "geometry") == before != code_now(project, "geometry")


def code_now(layout: Layout, script: str) -> bytes:
    """The file as it would be if nothing were accepted."""
    bare = Layout(layout.root.parent / "bare", layout.root.parent / "bare")
    shutil.copytree(layout.root, bare.root)
    (bare.root / NAME).unlink()
    compile_study(bare)
    return code(bare, script)


def test_a_second_change_is_accepted_on_top_of_the_first(project: Layout) -> None:
    before = code(project, "geometry")
    edit(project.root, RANK, "def rank(x)", "def rank(y)")
    accept(project, ["geometry"], "a rename")
    edit(project.root, RANK, "def rank(y)", "def rank(z)")
    compile_study(project)
    accept(project, ["geometry"], "a rename again")
    assert code(project, "geometry") == before and accepted(project).entries["geometry"]["because"] == "a rename again"


def test_a_stage_that_shares_its_script_can_be_named_as_dvc_names_it(project: Layout) -> None:
    write_text(project.root / "pipelines" / "data.py", "import finetrace.shared\n")
    with pytest.raises(FinetraceError, match="nothing to accept: the results of data-files are of this code, or there"):
        accept(project, ["data-files"], "x")


@pytest.mark.parametrize(("stages", "because", "told"), [
    (["geometry"], "", "--because: say why the change alters no result"),
    (["geometry"], " \n", "--because"),
    (["geometry", "geometri"], "x", r"geometri: is no stage with a script in pipelines/; there are: cross_task, "
                                    r"geometry"),
    (["cross-task"], "x", "nothing to accept: the results of cross-task are of this code, or there are none"),
])
def test_what_cannot_be_accepted_is_told(project: Layout, stages: list[str], because: str, told: str) -> None:
    edit(project.root, RANK, "def rank(x)", "def rank(y)")
    with pytest.raises(FinetraceError, match=told):
        accept(project, stages, because)
    assert not (project.root / NAME).exists()


def test_nothing_is_vouched_for_where_it_is_not_known_what_made_the_results(project: Layout) -> None:
    edit(project.root, RANK, "def rank(x)", "def rank(y)")
    for forget in (lambda: shutil.rmtree(project.root / ".dvc"), (project.root / "dvc.lock").unlink):
        compile_study(project)  # the file that says it is overwritten
        forget()
        with pytest.raises(FinetraceError, match="nothing to accept"):
            accept(project, ["all"], "x")
        assert not (project.root / NAME).exists()


def test_a_study_that_is_wrong_accepts_nothing(project: Layout) -> None:
    edit(project.root, RANK, "def rank(x)", "def rank(y)")
    edit(project.root, "params.yaml", "study:", "stduy:")
    with pytest.raises(FinetraceError, match="stduy"):
        accept(project, ["geometry"], "x")
    assert not (project.root / NAME).exists()


@pytest.mark.parametrize("text", ["3", "[1]", "geometry: 3", "geometry: {because: x}", "<<<<<<< HEAD\na: 1\n=======\n",
                                  "geometry: {because: x, content: 3, measure: a, draw: b}",
                                  "geometry: {because: x, content: {}, measure: a, draw: b}", "a: {", b"\xff\xfe\x00"])
def test_a_damaged_file_is_named(project: Layout, text: str | bytes) -> None:
    (project.root / NAME).write_bytes(text if isinstance(text, bytes) else text.encode())
    for read in (lambda: accepted(project), lambda: stage_of(project.root, "geometry", RUN),
                 lambda: compile_study(project)):
        with pytest.raises(FinetraceError, match=r"accepted\.yaml: is not what `finetrace accept` writes; restore it"):
            read()


def test_no_file_and_an_empty_one_vouch_for_nothing(project: Layout) -> None:
    assert accepted(project).entries == {}
    (project.root / NAME).write_text("")
    assert accepted(project).entries == {} and accepted(project).reason("geometry", {}) == ""
