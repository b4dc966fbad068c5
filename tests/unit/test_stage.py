"""What every pipeline script shares: exit codes, messages, log files, whole outputs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import listen_to_ctrl_c
from tests.stage_project import project, quiet_logger, stage_of
from tests.stages import ask, of_run

from finetrace.config.training import TrainSettings
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.pipeline import stage as stage_module
from finetrace.pipeline.accepted import NAME as ACCEPTED
from finetrace.pipeline.stage import AlreadyThere, Stage, open_stage, run
from finetrace.store.files import write_text, write_yaml
from finetrace.store.manifest import complete, read_key, read_manifest

HEAVY = ("torch", "transformers", "mlflow", "matplotlib", "sklearn", "datasets", "optuna", "dvc", "pydantic")
__all__ = ["project", "quiet_logger"]  # fixtures
PLACE, RUN = "micro-a/sst2/ft/s1", "micro-a_sst2_ft_s1"


def start(monkeypatch: pytest.MonkeyPatch, main: Callable[[Stage], Any], *item: str, stage: str = "data") -> int:
    """Run a stage in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", [f"{stage}.py", *item])
    try:
        run(stage, main)
    except SystemExit as leave:
        return int(leave.code or 0)
    return 0


def never(stage: Stage) -> None:
    pytest.fail("ran")


# --- exit codes and messages


def test_success_is_0_and_logged(project, monkeypatch, capsys):
    def main(stage: Stage) -> None:
        assert (stage.stage, stage.item, stage.label, stage.seed) == ("data", "sst2", "data@sst2", 0)
        stage_module.log.info("on the screen")
        stage_module.log.debug("in the file only")

    assert start(monkeypatch, main, "sst2") == 0
    error = capsys.readouterr().err
    assert "on the screen" in error and "in the file only" not in error
    assert "in the file only" in (project / ".finetrace" / "logs" / "data@sst2.log").read_text()


def test_user_error_is_1_without_a_traceback(project, monkeypatch, capsys):
    def main(stage: Stage) -> None:
        raise FinetraceError("rows.csv line 3: mend it")

    assert start(monkeypatch, main, "sst2") == 1
    error = capsys.readouterr().err
    log = ".finetrace/logs/data@sst2.log"
    assert f"finetrace: stage data@sst2 failed: rows.csv line 3: mend it\n  log: {log}" in error
    assert "Traceback" not in error and "Traceback" in (project / log).read_text()


def test_unexpected_error_is_1_with_a_traceback(project, monkeypatch, capsys):
    def main(stage: Stage) -> None:
        {}["missing"]

    assert start(monkeypatch, main, "sst2") == 1
    error = capsys.readouterr().err
    log = ".finetrace/logs/data@sst2.log"
    assert "Traceback" in error and f"finetrace: stage data@sst2 failed: KeyError: 'missing'\n  log: {log}" in error
    assert "Traceback" in (project / log).read_text()


def test_interruption_is_130_and_says_how_to_continue(project, monkeypatch, capsys):
    def main(stage: Stage) -> None:
        raise KeyboardInterrupt

    assert start(monkeypatch, main, "sst2") == 130
    error = capsys.readouterr().err
    assert "stage data@sst2 interrupted; run the same command to continue" in error and "data@sst2.log" in error
    assert "Traceback" not in error


def test_what_is_there_already_is_0_and_said(project, monkeypatch, capsys):
    def main(stage: Stage) -> None:
        raise AlreadyThere

    assert start(monkeypatch, main, "sst2") == 0
    assert capsys.readouterr().err == "data@sst2: is there already\n"


def test_dvcs_name_of_a_stage_that_shares_its_script_names_it(project, monkeypatch, capsys):
    monkeypatch.setenv("DVC_STAGE", "data-files@sst2")

    def main(stage: Stage) -> None:
        raise FinetraceError(stage.label)

    assert start(monkeypatch, main, "sst2") == 1
    assert "stage data-files@sst2 failed: data-files@sst2\n  log: .finetrace/logs/data-files@sst2.log" in (
        capsys.readouterr().err)


def test_unknown_item_lists_the_known(project, monkeypatch, capsys):
    assert start(monkeypatch, never, "nope") == 1
    error = capsys.readouterr().err
    assert "settings/data/nope.json: not found, so params.yaml does not ask for it (it asks for own, sst2)" in error
    assert "run `finetrace plan` after a change of params.yaml" in error
    assert start(monkeypatch, never, "nope", stage="model") == 1
    assert "stage model@nope failed: " in (error := capsys.readouterr().err) and "it asks for" not in error


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "\x00"])
def test_bad_settings_files_are_told_before_anything_runs(project, monkeypatch, capsys, content):
    (project / "settings" / "data" / "sst2.json").write_text(content)
    assert start(monkeypatch, never, "sst2") == 1
    error = capsys.readouterr().err
    assert "settings/data/sst2.json: " in error and "run `finetrace plan`" in error
    (project / "settings" / "code" / "data.json").unlink()
    assert start(monkeypatch, never, "own") == 1
    assert "settings/code/data.json: not found" in capsys.readouterr().err


def test_wrong_settings_are_told_with_their_file(project, monkeypatch, capsys):
    ask(project, "train", RUN, train={"epochs": -1})
    assert start(monkeypatch, lambda stage: stage.settings("train", TrainSettings), RUN, stage="train") == 1
    assert f"settings/train/{RUN}.json: train: epochs: -1.0" in capsys.readouterr().err


def test_a_stage_knows_its_trajectory(project):
    ask(project, "geometry", RUN, study_seed=7, **of_run(PLACE))
    stage = open_stage("geometry", RUN, Layout(project, project))
    assert (stage.seed, stage.place, stage.folder) == (7, PLACE, project / "outputs" / PLACE)
    assert (stage.asked["task"], stage.asked["seed"], stage.accepted) == ("sst2", 1, "")


def test_a_stage_without_items_and_one_whose_script_is_named_otherwise(project):
    ask(project, "world", world={})
    ask(project, "cross-task", "x")
    layout = Layout(project, project)
    assert open_stage("world", "", layout).label == "world"
    assert open_stage("cross-task", "x", layout).label == "cross-task@x"
    assert (project / "settings" / "code" / "cross_task.json").is_file()


def test_accepted_code_is_known_to_what_is_made_with_it(project):
    prints = json.loads((project / "settings" / "code" / "data.json").read_text())
    other = dict.fromkeys(("measure", "draw"), "f" * 64)
    write_yaml(project / ACCEPTED, {"data": {"because": "a rename", "content": prints, **other}})
    stage = stage_of(project)
    with stage.output(project / "data" / "own", stage.manifest("data", {})) as out:
        write_text(out / "x", "x")
    assert read_manifest(project / "data" / "own").accepted == stage.accepted == "a rename"


def test_an_item_cannot_move_the_log_file(project, monkeypatch, capsys):
    assert start(monkeypatch, never, "../../../x") == 1
    assert [p.name for p in (project / ".finetrace" / "logs").iterdir()] == ["data@..-..-..-x.log"]


def test_logs_live_in_the_users_project_when_dvc_runs_elsewhere(project, monkeypatch, tmp_path_factory, capsys):
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("DVC_ROOT", str(home))
    assert start(monkeypatch, lambda stage: None, "sst2") == 0
    log = home / ".finetrace" / "logs" / "data@sst2.log"
    assert log.exists() and not (project / ".finetrace").exists()
    assert start(monkeypatch, never, "nope") == 1
    assert f"\n  log: {log.with_name('data@nope.log')}" in capsys.readouterr().err


SCRIPT = """
import sys, time
from finetrace.pipeline.stage import run
from finetrace.store.files import write_text
def main(stage):
    with stage.output(stage.layout.task("sst2"), stage.manifest("data", {})) as out:
        write_text(out / "a", "half")
        print("working", flush=True)
        time.sleep(60)
run("data", main)
"""


def test_ctrl_c_in_a_real_process(project):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "sst2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=project,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        preexec_fn=listen_to_ctrl_c,
    )
    assert process.stdout is not None and process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error.startswith("finetrace: stage data@") and "Traceback" not in error
    assert list((project / "data").iterdir()) == []


# --- outputs


def test_output_appears_whole_with_its_manifest(project):
    stage = stage_of(project)
    upstream = project / "data" / "world"
    write_text(upstream / "w", "w")
    complete(upstream, stage.manifest("world", {}))
    manifest = stage.manifest("data", {upstream: upstream, project / "x.csv": "a" * 64}, {"data": 5})
    with stage.output(project / "data" / "own", manifest) as out:
        write_text(out / "train.csv", "x")
        manifest.facts = {"rows": 1, "device": "H200"}
        assert not (project / "data" / "own").exists()
    read = read_manifest(project / "data" / "own")
    assert read.inputs == {"data/world": read_key(upstream), "x.csv": "a" * 64}
    assert (read.stage, read.name, read.seeds, read.device, read.facts) == (
        "data",
        "own",
        {"data": 5},
        "H200",
        {"rows": 1},
    )
    assert read.settings == stage.asked and read.code == stage.code["measure"]
    assert read.started_at_ms == 1_790_000_000_000 and len(read.key) == len(read.code) == 64


def test_failing_output_leaves_nothing(project):
    stage = stage_of(project)
    with pytest.raises(RuntimeError), stage.output(project / "data" / "own", stage.manifest("data", {})) as out:
        write_text(out / "half", "x")
        raise RuntimeError
    assert list((project / "data").iterdir()) == []


def test_an_unfinished_input_is_refused(project):
    (project / "data" / "sst2").mkdir(parents=True)
    with pytest.raises(FinetraceError, match=r"sst2: has no manifest\.json"):
        stage_of(project).manifest("data", {project / "data" / "sst2": project / "data" / "sst2"})


def test_key_follows_settings_inputs_and_code_but_no_times_and_no_drawing(project):
    def key(item: str = "own", inputs: dict[Path, Path | str] | None = None, **asked: Any) -> str:
        ask(project, "data", item, **asked)
        return open_stage("data", item, Layout(project, project)).manifest("data", inputs or {}).key

    keys = [
        key(),
        key(task={"source": "micro"}),
        key(study_seed=1),
        key(inputs={project / "x": "1" * 64}),
        key(inputs={project / "y": "1" * 64}),
        key(code="other"),
        key("sst2"),
    ]
    assert len(set(keys)) == len(keys)
    assert key(draw="other") == keys[0]
    assert stage_of(project).manifest("other kind", {}, {"seed": 3}).key == keys[0]


def test_what_is_whole_and_asked_for_is_not_made_again(project):
    folder, more = project / "data" / "own", project / "models" / "own"

    def made(*outs: Path) -> None:
        stage = stage_of(project)
        manifest = stage.manifest("data", {}, outs=outs)
        for out in outs:
            with stage.output(out, manifest) as temporary:
                write_text(temporary / "x", "whole")

    def made_again(*outs: Path) -> bool:
        try:
            made(*outs)
        except AlreadyThere:
            return False
        return True

    assert made_again(folder) and not made_again(folder)
    assert made_again(folder, more) and not made_again(folder, more), "all folders of an item must be there"
    ask(project, "data", "own", task={"source": "micro"}, draw="other")
    assert not made_again(folder), "it has no figures"
    ask(project, "data", "own", task={"source": "micro"}, code="other")
    assert made_again(folder) and not made_again(folder)
    (folder / "x").write_text("WHOLE")  # the same size: only its content tells
    assert made_again(folder) and (folder / "x").read_text() == "whole"
    (folder / "provenance.json").unlink()
    assert made_again(folder)
    (folder / "cost.json").unlink()  # it may be absent
    assert not made_again(folder)


def test_the_first_start_is_remembered_over_crashes(project):
    scratch = project / ".finetrace" / "scratch" / "x"
    assert stage_of(project).started_at_ms(scratch) == 1_790_000_000_000
    later = stage_of(project)
    later.started += 500
    assert later.started_at_ms(scratch) == 1_790_000_000_000
    for damaged in ("", "{}", "[]", '{"started_at_ms": null}'):
        (scratch / "started.json").write_text(damaged)
        assert later.started_at_ms(scratch) == 1_790_000_500_000
        assert json.loads((scratch / "started.json").read_text()) == {"started_at_ms": 1_790_000_500_000}


# --- imports


@pytest.mark.parametrize(
    "modules",
    [
        "finetrace",
        "finetrace.pipeline.stage, finetrace.pipeline.lens, finetrace.config.training",
        "finetrace.study, finetrace.study.plan, finetrace.study.use, finetrace.pipeline.unchanged",
        "finetrace.lenses.infodynamics.measures",
        "finetrace.data.registry, finetrace.data.build, finetrace.data.readers",
        "finetrace.models.fetch, finetrace.models.load, finetrace.store.tables",
    ],
)
def test_heavy_packages_are_imported_where_they_are_used(modules):
    code = f"import sys, {modules}; print([m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert found.stdout == "[]\n"


def test_import_of_the_package_costs_nothing():
    code = "import sys; before = set(sys.modules); import finetrace; print(sorted(set(sys.modules) - before))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    assert found.stdout == "['finetrace']\n"
