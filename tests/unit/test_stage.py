"""What every pipeline script shares: exit codes, messages, log files, whole outputs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.conftest import listen_to_ctrl_c

from finetrace import stage as stage_module
from finetrace.config import parse_study
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.stage import Stage, run
from finetrace.store.files import write_text
from finetrace.store.manifest import complete, read_key, read_manifest

STUDY = {"study": {"name": "demo"}, "tasks": {"sst2": {}, "own": {"source": "micro"}}}
HEAVY = ("torch", "transformers", "mlflow", "matplotlib", "sklearn", "datasets", "optuna", "dvc")


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def quiet_logger():
    yield
    for handler in list(stage_module.log.handlers):
        handler.close()
        stage_module.log.removeHandler(handler)
    stage_module.log.propagate = True


def start(monkeypatch, main, *item: str) -> int:
    """Run a stage in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["data.py", *item])
    try:
        run("data", main)
    except SystemExit as leave:
        return int(leave.code)
    return 0


def stage_of(project: Path, item: str = "own") -> Stage:
    return Stage("data", item, parse_study(STUDY, "params.yaml"), Layout(project, project), started=1_790_000_000.0)


# --- exit codes and messages


def test_success_is_0_and_logged(project, monkeypatch, capsys):
    def main(stage: Stage) -> None:
        assert (stage.stage, stage.item, stage.label, stage.study.study.name) == ("data", "sst2", "data@sst2", "demo")
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
    log = project / ".finetrace" / "logs" / "data@sst2.log"
    assert f"finetrace: stage data@sst2 failed: rows.csv line 3: mend it\n  log: {log}" in error
    assert "Traceback" not in error and "Traceback" in log.read_text()


def test_unexpected_error_is_1_with_a_traceback(project, monkeypatch, capsys):
    def main(stage: Stage) -> None:
        {}["missing"]

    assert start(monkeypatch, main, "sst2") == 1
    error = capsys.readouterr().err
    log = project / ".finetrace" / "logs" / "data@sst2.log"
    assert (
        "Traceback" in error and "finetrace: stage data@sst2 failed: KeyError: 'missing'" in error and str(log) in error
    )
    assert "Traceback" in log.read_text()


def test_interruption_is_130_and_says_how_to_continue(project, monkeypatch, capsys):
    def main(stage: Stage) -> None:
        raise KeyboardInterrupt

    assert start(monkeypatch, main, "sst2") == 130
    error = capsys.readouterr().err
    assert "stage data@sst2 interrupted; run the same command to continue" in error and "data@sst2.log" in error
    assert "Traceback" not in error


def test_unknown_item_lists_the_known(project, monkeypatch, capsys):
    assert start(monkeypatch, lambda stage: stage.pick("tasks", stage.study.tasks), "nope") == 1
    assert "params.yaml: tasks has no 'nope'; it has sst2, own" in capsys.readouterr().err
    assert start(monkeypatch, lambda stage: stage.pick("models", {})) == 1
    assert "stage data failed: params.yaml: models has no ''; it has nothing" in capsys.readouterr().err


def test_bad_settings_are_told_before_anything_runs(project, monkeypatch, capsys):
    (project / "params.yaml").write_text("study: {name: x}\ntrian: {}\n")
    assert start(monkeypatch, lambda stage: pytest.fail("ran"), "sst2") == 1
    assert "params.yaml: unknown key 'trian'; did you mean 'train'?" in capsys.readouterr().err
    (project / "params.yaml").unlink()
    assert start(monkeypatch, lambda stage: pytest.fail("ran"), "sst2") == 1
    assert "params.yaml: not found; run this in the project folder" in capsys.readouterr().err


def test_an_item_cannot_move_the_log_file(project, monkeypatch, capsys):
    assert start(monkeypatch, lambda stage: stage.pick("tasks", stage.study.tasks), "../../../x") == 1
    assert [p.name for p in (project / ".finetrace" / "logs").iterdir()] == ["data@..-..-..-x.log"]


def test_logs_live_in_the_users_project_when_dvc_runs_elsewhere(project, monkeypatch, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("DVC_ROOT", str(home))
    assert start(monkeypatch, lambda stage: None, "sst2") == 0
    assert (home / ".finetrace" / "logs" / "data@sst2.log").exists() and not (project / ".finetrace").exists()


SCRIPT = """
import sys, time
from finetrace.stage import run
from finetrace.store.files import write_text
def main(stage):
    with stage.output(stage.layout.task("sst2"), stage.manifest("data", {}, {})) as out:
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
    complete(upstream, stage.manifest("world", {}, {}))
    manifest = stage.manifest(
        "data", {"rows": 3}, {upstream: upstream, project / "x.csv": "a" * 64}, {"data": 5}, rooms=("data",)
    )
    with stage.output(project / "data" / "own", manifest) as out:
        write_text(out / "train.csv", "x")
        manifest.facts = {"rows": 1, "device": "H200"}
        assert not (project / "data" / "own").exists()
    read = read_manifest(project / "data" / "own")
    assert read.inputs == {"data/world": read_key(upstream), "x.csv": "a" * 64}
    assert (read.study, read.name, read.seeds, read.device, read.facts) == (
        "demo",
        "own",
        {"data": 5},
        "H200",
        {"rows": 1},
    )
    assert read.started_at_ms == 1_790_000_000_000 and len(read.key) == len(read.code) == 64


def test_failing_output_leaves_nothing(project):
    stage = stage_of(project)
    with pytest.raises(RuntimeError), stage.output(project / "data" / "own", stage.manifest("data", {}, {})) as out:
        write_text(out / "half", "x")
        raise RuntimeError
    assert list((project / "data").iterdir()) == []


def test_an_unfinished_input_is_refused(project):
    (project / "data" / "sst2").mkdir(parents=True)
    with pytest.raises(FinetraceError, match=r"sst2: has no manifest\.json"):
        stage_of(project).manifest("data", {}, {project / "data" / "sst2": project / "data" / "sst2"})


def test_key_follows_settings_inputs_and_sources_but_no_times(project):
    stage = stage_of(project)
    keys = [
        stage.manifest("data", settings, inputs, rooms=rooms).key
        for settings, inputs, rooms in (
            ({"a": 1}, {}, ()),
            ({"a": 2}, {}, ()),
            ({"a": 1}, {project / "x": "1" * 64}, ()),
            ({"a": 1}, {}, ("data",)),
            ({"a": 1}, {}, ("store/files.py",)),
        )
    ]
    assert len(set(keys)) == 5
    later = Stage("data", "own", stage.study, stage.layout)
    assert later.manifest("data", {"a": 1}, {}).key == keys[0]


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
        "finetrace.config, finetrace.stage",
        "finetrace.lenses.infodynamics",
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
