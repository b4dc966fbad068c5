"""The whole chain on a toy study, as a user runs it: dvc repro, change something, repro, publish."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RUN = "outputs/toy/micro-sentiment/ft/s1"


def command(project: Path, *words: str, check: bool = True, **extra: str) -> subprocess.CompletedProcess:
    """Run a command in the project with this interpreter's tools and the project's own source."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                   "PYTHONPATH": str(project / "src"),
                   "DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1",
                   "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t",
                   "DVC_SITE_CACHE_DIR": str(project.parent / "site"), **extra}
    environment.pop("DVC_ROOT", None)
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert not check or done.returncode == 0, f"{words}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done


def executed(output: str) -> list[str]:
    """Names of the stages that ran."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]


@contextlib.contextmanager
def a_comment_in(source: Path):
    """Change a source file for the time of the block."""
    before = source.read_text()
    source.write_text(before + "\n# a comment\n")
    try:
        yield
    finally:
        source.write_text(before)


def change(project: Path, edit) -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    edit(params)
    path.write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A repository with the toy study, reproduced once."""
    folder = tmp_path_factory.mktemp("pipeline") / "project"
    folder.mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("src", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore", "offline.html"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc" / name)
    (folder / "mlruns").mkdir()
    shutil.copy(ROOT / "mlruns" / "README.md", folder / "mlruns" / "README.md")
    shutil.copy(Path(__file__).parent / "params.yaml", folder / "params.yaml")
    command(folder, "git", "init", "-q", "-b", "main")
    command(folder, "git", "add", "-A")
    command(folder, "git", "commit", "-qm", "toy")
    first = command(folder, sys.executable, "-m", "finetrace.cli", "repro", "--jobs", "2")
    assert {"world", "pretrain@toy", "data@micro-sentiment", "publish", "atlas"} <= set(executed(first.stdout))
    command(folder, "git", "add", "-A")
    command(folder, "git", "commit", "-qm", "first run")
    return folder


def test_every_output_is_there(project: Path):
    run = project / RUN
    for name in ("signals.parquet", "history.parquet", "probe.parquet", "timing.parquet", "metrics.json", "manifest.json",
                 "checkpoints/step-00000000/model.safetensors", "checkpoints/step-00000024/model.safetensors"):
        assert (run / "trajectory" / name).is_file(), name
    for name in ("metrics.json", "table.parquet", "manifest.json", "results.json", "curves.csv", "figures/signals.png"):
        assert (run / "infodynamics" / name).is_file(), name
    assert set(json.loads((run / "infodynamics" / "results.json").read_text())) == {"novelty", "transience", "resonance"}
    of_words = project / "outputs/toy/micro-pos/ft/s1"
    folders = [task / lens for task in (run, of_words) for lens in ("geometry", "similarity", "hulls", "probes", "convergence")]
    for folder in (*folders, project / "comparisons/settings", project / "cross-tasks/sentiment-after-pos"):
        for name in ("metrics.json", "table.parquet", "manifest.json", "curves.csv"):
            assert (folder / name).is_file(), folder / name
        assert list((folder / "figures").glob("*.png")), folder
    adapted = project / "outputs/toy/micro-sentiment/lp-lora/s1"
    for lens in ("calibration", "features", "kernel"):
        assert list((adapted / lens / "figures").glob("*.png")) and (adapted / lens / "metrics.json").is_file(), lens
    assert "food/accuracy" in json.loads((adapted / "calibration/metrics.json").read_text())
    assert (adapted / "trajectory/checkpoints/step-00000024/adapter_model.safetensors").is_file()
    assert (run / "hidden/step-00000024/tokens.npy").is_file() and (of_words / "hidden/step-00000000/span.npy").is_file()
    assert (of_words / "trajectory/checkpoints/step-00000000/head.safetensors").is_file()
    assert (project / "outputs/toy/micro-sentiment/ft-tuned/tune/trials.parquet").is_file()
    page = (project / "atlas/index.html").read_text()
    report = (project / "atlas/runs/toy_micro-sentiment_ft_s1.html").read_text()
    for folder, text in ((project / "atlas", page), (project / "atlas/runs", report)):
        shown = re.findall(r'(?:img src|a href)="([^"]+)"', text)
        assert len(shown) > 3 and all((folder / address).exists() for address in shown)
    assert all(f"<h2>{lens}</h2>" in report for lens in ("infodynamics", "geometry", "similarity", "hulls", "probes",
                                                     "convergence"))
    assert (project / "mlflow.db").is_file()


def test_tuned_cell_takes_the_searched_settings(project: Path):
    best = yaml.safe_load((project / "outputs/toy/micro-sentiment/ft-tuned/tune/best.yaml").read_text())
    taken = json.loads((project / "outputs/toy/micro-sentiment/ft-tuned/s1/trajectory/manifest.json").read_text())
    assert taken["settings"]["train"]["learning_rate"] == best["train"]["learning_rate"] != 1e-3
    fixed = json.loads((project / RUN / "trajectory/manifest.json").read_text())
    assert fixed["settings"]["train"]["learning_rate"] == 1e-3


def test_second_repro_does_nothing(project: Path):
    assert executed(command(project, "dvc", "repro").stdout) == []
    again = command(project, sys.executable, "-m", "finetrace.cli", "repro", "--jobs", "2")
    assert executed(again.stdout) == [] and "up to date" in again.stdout


def test_side_by_side_leaves_the_lock_of_one_by_one(project: Path):
    locked = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert len(locked) == len(command(project, "dvc", "stage", "list", "--name-only").stdout.split())
    assert command(project, "dvc", "status", "--json").stdout.strip() == "{}"


def test_a_change_in_the_lens_does_not_train_again(project: Path):
    with a_comment_in(project / "src/finetrace/lenses/slope.py"):
        ran = executed(command(project, "dvc", "repro", "infodynamics").stdout)
    assert ran and all(stage.startswith("infodynamics@") for stage in ran)


def test_data_that_is_made_again_with_equal_content_trains_nothing(project: Path):
    with a_comment_in(project / "src/finetrace/data/baseline.py"):
        ran = executed(command(project, "dvc", "repro", "hidden").stdout)
    assert sorted(ran) == ["data@micro-pos", "data@micro-sentiment"]


def test_a_further_set_out_of_distribution_trains_nothing(project: Path):
    change(project, lambda params: params["tasks"]["micro-sentiment"]["ood"].update(travel="micro-sentiment-travel"))
    ran = executed(command(project, "dvc", "repro", "calibration").stdout)
    adapted = "toy_micro-sentiment_lp-lora_s1"
    assert ran == ["data@micro-sentiment", f"predictions@{adapted}", f"calibration@{adapted}"]
    metrics = json.loads((project / "outputs/toy/micro-sentiment/lp-lora/s1/calibration/metrics.json").read_text())
    assert {"food/accuracy", "travel/accuracy"} <= set(metrics)
    command(project, "git", "checkout", "-q", "params.yaml", "dvc.lock")
    command(project, "dvc", "checkout", "-q", "--force")


def test_run_cache_restores_instead_of_training(project: Path):
    shutil.rmtree(project / "outputs/toy/micro-sentiment/ft/s1")
    (project / "dvc.lock").unlink()
    done = command(project, "dvc", "repro", "infodynamics@toy_micro-sentiment_ft_s1")
    assert executed(done.stdout) == []
    assert (project / RUN / "trajectory/signals.parquet").is_file()
    command(project, "git", "checkout", "-q", "dvc.lock")


def test_retraining_gives_the_same_bytes(project: Path):
    names = ("signals.parquet", "history.parquet", "probe.parquet", "metrics.json", "checkpoints/step-00000024/model.safetensors")
    before = [(project / RUN / "trajectory" / n).read_bytes() for n in names]
    command(project, "dvc", "repro", "-f", "-s", "--no-run-cache", "train@toy_micro-sentiment_ft_s1")
    assert [(project / RUN / "trajectory" / n).read_bytes() for n in names] == before


def test_metrics_and_plots(project: Path):
    shown = json.loads(command(project, "dvc", "metrics", "show", "--json").stdout)
    files = shown[""]["data"]
    assert 0 <= files[f"{RUN}/trajectory/metrics.json"]["data"]["validation/accuracy"] <= 1
    plots = command(project, "dvc", "plots", "show", "-o", "plots-out")
    assert "index.html" in plots.stdout
    assert (project / "plots-out/index.html").stat().st_size > 1000


def test_experiment_in_a_temporary_folder_publishes_to_the_real_store(project: Path):
    import sqlite3

    def runs() -> int:
        with sqlite3.connect(project / "mlflow.db") as database:
            return database.execute("select count(*) from runs").fetchone()[0]

    before = runs()
    command(project, "dvc", "exp", "run", "--temp", "-S", "infodynamics.window=12")
    assert runs() > before


def test_a_failing_stage_names_itself_and_its_log(project: Path):
    try:
        change(project, lambda p: p["infodynamics"].update(window=5000))
        done = command(project, "dvc", "repro", "infodynamics@toy_micro-sentiment_ft_s1", check=False)
    finally:
        command(project, "git", "checkout", "-q", "params.yaml", "dvc.lock")
    assert done.returncode != 0
    assert "stage infodynamics@toy_micro-sentiment_ft_s1 failed" in done.stderr
    assert "window" in done.stderr and ".finetrace/logs/" in done.stderr


def test_a_wrong_key_names_the_key_and_the_fix(project: Path):
    try:
        change(project, lambda p: p["train"].update(learning_rat=1))
        done = command(project, "dvc", "repro", "-f", "-s", "tune@toy_micro-sentiment_ft", check=False)
    finally:
        command(project, "git", "checkout", "-q", "params.yaml", "dvc.lock")
    assert done.returncode != 0
    assert "learning_rat" in done.stderr and "learning_rate" in done.stderr


def test_publishing_again_restores_a_deleted_store(project: Path):
    import sqlite3

    command(project, "dvc", "repro")
    def names() -> list[str]:
        with sqlite3.connect(project / "mlflow.db") as database:
            return sorted(r[0] for r in database.execute("select name from runs where lifecycle_stage = 'active'"))

    (project / "mlflow.db").unlink()
    shutil.rmtree(project / "mlruns")
    command(project, "dvc", "repro")
    first = names()
    command(project, sys.executable, "pipelines/publish.py")
    assert names() == first and "toy_micro-sentiment_ft_s1" in first


def test_the_lens_of_the_guide_works_as_written(project: Path):
    guide = (ROOT / "docs/add-a-lens.md").read_text("utf-8")
    files = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", guide, flags=re.DOTALL))
    assert sorted(files) == ["dvc.yaml", "pipelines/norms.py", "src/finetrace/figures/norms.py", "src/finetrace/lenses/norms.py"]
    group = files.pop("dvc.yaml")
    for name, text in files.items():
        (project / name).write_text(text)
    graph = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(graph.replace("  atlas:\n", group + "\n  atlas:\n", 1))
    ran = executed(command(project, "dvc", "repro").stdout)
    runs = [f"toy_micro-{name}_s1" for name in ("sentiment_ft", "sentiment_ft-tuned", "pos_ft")]
    assert {s for s in ran if "norms" in s} == {f"norms@{key}" for key in runs}
    assert "atlas" in ran and "publish" in ran
    assert json.loads((project / RUN / "norms/metrics.json").read_text())["norm/layer-02/last"] > 0
    assert "<h2>norms</h2>" in (project / "atlas/runs/toy_micro-sentiment_ft_s1.html").read_text()
    published = json.loads((project / "mlruns/published.json").read_text())
    assert any(r["name"] == "norms@toy_micro-sentiment_ft_s1" for r in published)
