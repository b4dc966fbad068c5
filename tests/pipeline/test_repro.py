"""The whole chain on a toy study, as a user runs it: repro, a change, repro again, publish; and plain dvc repro."""

import contextlib
import json
import re
import shutil
import sqlite3
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from tests.atlas_pages import study_of
from tests.pipeline.toy import (
    add_lens_of_the_guide,
    changed_params,
    command,
    committed,
    edited,
    finetrace,
    make_project,
    ran,
    repro,
    restore,
    stale,
)

from finetrace.atlas.headlines import OF_FINE_TUNINGS, OF_MASKED_WORDS
from finetrace.atlas.signals import courses_by_metric
from finetrace.layout import Layout
from finetrace.lenses.headline import value_of
from finetrace.pipeline.compile import code_contents
from finetrace.pipeline.graph import opened
from finetrace.tracking.checkpoints import numbers_at
from finetrace.tracking.described import LENSES, at_checkpoints_of

RUN = "outputs/toy/micro-sentiment/ft/s1"
KEY = "toy_micro-sentiment_ft_s1"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A repository with the toy study, reproduced once."""
    params = (Path(__file__).parent / "params.yaml").read_text()
    folder = make_project(tmp_path_factory.mktemp("pipeline") / "project", params)
    first = repro(folder)
    assert {"world", "pretrain@toy", "data@micro-sentiment", "publish", "atlas"} <= set(ran(first))
    committed(folder, "outputs")
    shutil.copy(folder / "mlruns/published.json", folder.parent)
    return folder


def test_every_stage_leaves_whole_outputs(project: Path):
    run, of_words = project / RUN, project / "outputs/toy/micro-pos/ft/s1"
    assert (run / "trajectory/manifest.json").is_file() and (run / "infodynamics/metrics.json").is_file()
    folders = [
        folder / lens
        for folder in (run, of_words)
        for lens in ("geometry", "similarity", "hulls", "probes", "convergence")
    ]
    folders += [
        project / place / lens
        for place in ("outputs/toy/pretrain", "outputs/toy-reviews/adapt")
        for lens in ("edges", "cloze")
    ]
    folders += [project / "outputs/toy/pretrain/pairs"]
    folders += [
        project / name
        for name in (
            "comparisons/settings",
            "cross-tasks/sentiment-after-pos",
            "dynamics/toy",
            "outputs/downstream/toy",
        )
    ]
    for folder in folders:
        for name in (
            "metrics.json",
            "table.parquet",
            "manifest.json",
            "provenance.json",
            "cost.json",
            "curves.csv",
            "measured.npz",
            "figures/manifest.json",
        ):
            assert (folder / name).is_file(), folder / name
        assert list((folder / "figures").glob("*.png")), folder
    adapted = project / "outputs/toy/micro-sentiment/lp-lora/s1"
    for lens in ("calibration", "features", "kernel", "influence"):
        assert list((adapted / lens / "figures").glob("*.png")) and (adapted / lens / "metrics.json").is_file(), lens
    assert "food/accuracy" in json.loads((adapted / "calibration/metrics.json").read_text())
    assert (adapted / "trajectory/checkpoints/step-00000024/adapter_model.safetensors").is_file()
    assert (run / "hidden/step-00000024/tokens.npy").is_file() and (
        of_words / "hidden/step-00000000/span.npy"
    ).is_file()
    assert (project / "outputs/toy/micro-sentiment/ft-tuned/tune/trials.parquet").is_file()
    assert not (project / "outputs/toy/micro-sentiment/ft/tune").exists()
    study = study_of(project / "atlas")
    report = (project / "atlas/runs/toy_micro-sentiment_ft_s1.html").read_text()
    addresses = [place["page"] for place in study["places"] if place["kind"] != "shared"]
    addresses += [address for address, _ in study["figures"]]
    for folder, shown in ((project / "atlas", addresses),
                          (project / "atlas/runs", re.findall(r'(?:img src|a href)="([^"]+)"', report))):
        assert len(shown) > 3 and all((folder / address).exists() for address in shown)
    assert all(
        f'<h2 id="{lens}">' in report
        for lens in ("infodynamics", "geometry", "similarity", "hulls", "probes", "convergence")
    )
    assert (project / "mlflow.db").is_file()


def test_a_stage_depends_on_everything_that_it_reads(project: Path):
    """What a manifest names as its inputs is what dvc.yaml names, exactly; copies of manifests in inputs/ stand for
    the folders."""
    copies = {
        item["to"]: item["from"]
        for item in yaml.safe_load((project / "plan.yaml").read_text())["plan"]["inputs"].values()
    }
    checked = 0
    with opened(project) as graph:
        for name, stage in graph.stages.items():
            outs = [project / path / "provenance.json" for path in stage.writes]
            if not outs[0].is_file() or name == "atlas":
                continue
            read = {path.removeprefix("./") for path in json.loads(outs[0].read_text())["inputs"]}
            deps = {path for path in stage.reads if not path.startswith("settings/")}
            groups = {dep for dep in deps if dep.startswith("inputs/")}
            deps = (deps - groups) | {
                source for target, source in copies.items() if str(Path(target).parent) in groups
            }
            named = {dep.removesuffix("/manifest.json") for dep in deps}
            named |= {
                f"models/{one}" for one in ("toy", "toy-reviews")
            }  # decided by the trajectories that were made with them
            assert all(any(path == one or path.startswith(f"{one}/") for one in named) for path in read), (name,
                                                                                                           read - named)
            checked += 1
    assert checked > 30


def test_tuned_cell_takes_the_searched_settings(project: Path):
    best = yaml.safe_load((project / "outputs/toy/micro-sentiment/ft-tuned/tune/best.yaml").read_text())
    taken = json.loads((project / "outputs/toy/micro-sentiment/ft-tuned/s1/trajectory/provenance.json").read_text())
    assert taken["settings"]["train"]["learning_rate"] == best["train"]["learning_rate"] != 1e-3
    fixed = json.loads((project / RUN / "trajectory/provenance.json").read_text())
    assert fixed["settings"]["train"]["learning_rate"] == 1e-3


def test_second_repro_does_nothing(project: Path):
    again = repro(project)
    assert ran(again) == [] and "up to date" in again.stdout
    assert ran(command(project, "dvc", "repro")) == []
    assert command(project, "git", "status", "--porcelain").stdout == ""


def test_the_lock_has_every_stage_in_the_order_of_the_graph(project: Path):
    locked = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert list(locked) == command(project, "dvc", "stage", "list", "--name-only").stdout.split()
    assert command(project, "dvc", "status", "--json").stdout.strip() == "{}"


def test_comments_and_docstrings_make_nothing_again(project: Path):
    with (
        edited(project / "src/finetrace/models/load.py", '"""', '"""Other words. '),
        edited(project / "src/finetrace/lenses/infodynamics/slope.py", "\n\n\n", "\n\n\n# a comment\n"),
    ):
        assert ran(repro(project)) == []
    assert stale(project) == set()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("lenses/geometry/settings.py", "special_tokens: bool = True", "special_tokens: bool = False"),
        ("lenses/intervals.py", "import numpy as np", "import numpy as np\n\nMARK = 1"),
        ("store/hidden.py", "import numpy as np", "import numpy as np\n\nMARK = 1"),
        *(pytest.param(file, words, f"{words}\n\nMARK = 1", marks=pytest.mark.slow) for file, words in (
            ("lenses/dynamics/inputs.py", "import numpy as np"), ("store/predictions.py", "import numpy as np"),
            ("models/timeline.py", "import json"))),
        (
            "data/world/lexicon.py",
            "from __future__ import annotations",
            "from __future__ import annotations\n\nMARK = 1",
        ),
        ("data/tasks/glue.yaml", "cola:", "# one\ncola:"),
    ],
)
def test_a_change_of_meaning_makes_exactly_the_stages_stale_that_import_it(
    project: Path, file: str, old: str, new: str
):
    before = code_contents(Layout(project, project))
    with edited(project / "src/finetrace" / file, old, new):
        after = code_contents(Layout(project, project))
        touched = {script for script in before if before[script] != after[script]}
        module = "finetrace." + file.removesuffix(".py").replace("/", ".")
        assert touched == {
            s
            for s, content in before.items()
            if module in content["modules"] or f"finetrace/{file}" in content["data"]
        }
        found = stale(project)
    with opened(project) as graph:
        scripts = {name: Path(graph.command(name).split()[1]).stem for name in graph.stages}
    assert touched and found == {
        name for name, script in scripts.items() if script in touched and script not in ("plan", "settings", "inputs")
    }


def test_after_these_changes_all_is_as_it_was(project: Path):
    assert stale(project) == set()


@pytest.mark.slow
def test_a_changed_figure_draws_again_and_measures_nothing(project: Path):
    folder = project / RUN / "geometry"
    before = {name: (folder / name).read_bytes() for name in ("table.parquet", "manifest.json", "measured.npz")}
    with edited(
        project / "src/finetrace/lenses/geometry/figures.py", "import numpy as np", "import numpy as np\n\nMARK = 1"
    ):
        done = repro(project)
        assert {name.split("@")[0] for name in ran(done)} == {"geometry", "atlas", "publish"}
        assert done.stderr.count("measured before; the figures are drawn again") == 2
        assert before == {name: (folder / name).read_bytes() for name in before}
        assert ran(command(project, "dvc", "repro", "-f", "-s", "--no-run-cache", f"geometry@{KEY}")) == [
            f"geometry@{KEY}"
        ]
        assert before == {name: (folder / name).read_bytes() for name in before}
    restore(project)


@pytest.mark.slow
def test_data_that_is_made_again_with_equal_content_trains_nothing(project: Path):
    with edited(project / "src/finetrace/data/baseline.py", "import numpy as np", "import numpy as np\n\nMARK = 1"):
        assert sorted(ran(repro(project))) == ["data@micro-pos", "data@micro-sentiment"]
    restore(project)


@pytest.mark.slow
def test_accepted_results_stand(project: Path):
    with edited(project / "src/finetrace/lenses/infodynamics/slope.py", "import numpy as np",
                "import numpy as np\n\nMARK = 1"):
        assert {name.split("@")[0] for name in stale(project)} >= {"infodynamics"}
        said = finetrace(project, "accept", "all", "--because", "only a constant")
        assert "finetrace.lenses.infodynamics.slope" in said.stdout
        assert stale(project) == {"atlas", "publish"}  # they say so
        assert set(ran(repro(project))) == {"atlas", "publish"}
        assert "only a constant" in study_of(project / "atlas")["intro"]
        with contextlib.closing(sqlite3.connect(project / "mlflow.db")) as database:
            told = database.execute("select count(*) from tags where key = 'accepted' and value = 'only a constant'")
            assert told.fetchone()[0] >= 4  # four lenses, and what reaches them through figures
        assert "only a constant" in (project / "accepted.yaml").read_text()
    (project / "accepted.yaml").unlink()
    restore(project)
    assert stale(project) == set()


@pytest.mark.slow
def test_more_of_everything_makes_exactly_what_is_new(project: Path):
    """A further set out of distribution trains nothing, one more seed makes its own items, and more trials continue
    those that have ended."""
    tune = project / "outputs/toy/micro-sentiment/ft-tuned/tune"
    before = pq.read_table(tune / "trials.parquet").to_pylist()

    def more(params):
        params["tasks"]["micro-sentiment"]["ood"].update(travel="micro-sentiment-travel")
        params["runs"].append({"model": "toy", "task": "micro-pos", "seed": 2})
        params["tune"].update(trials=3)

    with changed_params(project, more):
        done = repro(project)
        adapted, tuned = "toy_micro-sentiment_lp-lora_s1", "toy_micro-sentiment_ft-tuned"
        lenses = ("infodynamics", "hidden", "geometry", "similarity", "hulls", "probes", "convergence")
        expected = {"data@micro-sentiment",
                    *(f"{lens}@{adapted}" for lens in ("predictions", "calibration", "features"))}
        expected |= {f"{stage}@toy_micro-pos_ft_s2" for stage in ("train", *lenses)}
        made = set(ran(done))
        rest = made - expected
        assert made >= expected | {f"tune@{tuned}", "atlas", "publish"}
        # a better trial trains again, and is looked at again
        of_better = {f"train-tuned@{tuned}_s1", f"infodynamics@{tuned}_s1", f"hidden@{tuned}_s1", "comparison@settings"}
        assert rest - {f"tune@{tuned}", "atlas", "publish", "inputs@atlas--comparisons_settings"} <= of_better
        metrics = project / "outputs/toy/micro-sentiment/lp-lora/s1/calibration/metrics.json"
        assert {"food/accuracy", "travel/accuracy"} <= set(json.loads(metrics.read_text()))
        assert "3 trials, 2 have ended already" in done.stderr
        assert pq.read_table(tune / "trials.parquet").to_pylist()[:2] == before


def test_other_epochs_of_another_task_search_nothing_again(project: Path):
    with changed_params(project, lambda params: params.update(by_task={"micro-pos": {"epochs": 1}})):
        found = stale(project)
        assert found == {"train@toy_micro-pos_ft_s1", "atlas"}  # it has tables of the whole study


def test_dvc_says_that_the_plan_was_old_and_then_runs(project: Path):
    with changed_params(
        project, lambda params: params["tasks"].update({"micro-dep": {"source": "micro"}})
    ):
        first = command(project, "dvc", "repro", "data", check=False)
        assert first.returncode != 0 and "plan.yaml is written; run the same command again" in first.stderr
        command(project, "dvc", "repro", "data")
        assert (project / "data/micro-dep/manifest.json").is_file()


@pytest.mark.slow
def test_run_cache_restores_instead_of_training(project: Path):
    shutil.rmtree(project / RUN)
    (project / "dvc.lock").unlink()
    assert ran(command(project, "dvc", "repro", f"infodynamics@{KEY}")) == []
    assert (project / RUN / "trajectory/signals.parquet").is_file()
    assert not (project / RUN / "trajectory/cost.json").exists()
    assert ran(repro(project)) == ["publish"]  # the rest from the cache, too
    assert command(project, "git", "status", "--porcelain").stdout == ""


def test_retraining_gives_the_same_bytes_and_the_same_lock(project: Path):
    names = (
        "signals.parquet",
        "history.parquet",
        "probe.parquet",
        "metrics.json",
        "manifest.json",
        "provenance.json",
        "checkpoints/step-00000024/model.safetensors",
    )
    before = [(project / RUN / "trajectory" / n).read_bytes() for n in names]
    command(project, "dvc", "repro", "-f", "-s", "--no-run-cache", f"train@{KEY}")
    assert [(project / RUN / "trajectory" / n).read_bytes() for n in names] == before
    assert command(project, "git", "status", "--porcelain").stdout == ""


def test_metrics_and_plots(project: Path):
    shown = json.loads(command(project, "dvc", "metrics", "show", "--json").stdout)
    files = shown[""]["data"]
    assert 0 <= files["atlas/metrics/toy_micro-sentiment_ft_s1.json"]["data"]["accuracy"] <= 1
    assert "words" in files["atlas/metrics/toy_pretrain.json"]["data"]
    text = command(project, "dvc", "metrics", "show").stdout
    assert len(text.splitlines()) == len(files) + 1 and max(map(len, text.splitlines())) <= 160
    plots = command(project, "dvc", "plots", "show", "-o", "plots-out")
    assert "index.html" in plots.stdout
    assert (project / "plots-out/index.html").stat().st_size > 1000
    shutil.rmtree(project / "plots-out")


@pytest.mark.slow
def test_experiment_in_a_temporary_folder_publishes_to_the_real_store(project: Path):
    def runs() -> int:
        with contextlib.closing(sqlite3.connect(project / "mlflow.db")) as database:
            return database.execute("select count(*) from runs").fetchone()[0]

    before = runs()
    command(project, "dvc", "exp", "run", "--temp", "-S", "kernel.rows.eval=10")
    assert runs() > before


def test_a_failing_stage_names_itself_and_its_log_and_leaves_the_others_running(project: Path):
    def wrong(params):
        params["infodynamics"].update(window=5000)
        params["features"].update(figure_rows=19)

    with changed_params(project, wrong):
        done = repro(project, check=False)
        assert done.returncode == 1 and any(name.startswith("features@") for name in ran(done))
        assert f"infodynamics@{KEY}: stage infodynamics@{KEY} failed" in done.stdout
        assert "window" in done.stdout and ".finetrace/logs/" in done.stdout and "failed: 4" in done.stdout
        alone = command(project, "dvc", "repro", f"infodynamics@{KEY}", check=False)
        assert alone.returncode != 0 and f"stage infodynamics@{KEY} failed" in alone.stderr


@pytest.mark.parametrize("words", [("dvc", "repro"), ("repro",), ("plan",), ("doctor",), ("publish",)])
def test_a_wrong_key_names_the_key_and_the_fix_at_every_entry(project: Path, words: tuple[str, ...]):
    before = (project / "params.yaml").read_text()
    try:
        (project / "params.yaml").write_text(
            before.replace("infodynamics: {window", "hulsl: {}\ninfodynamics: {window")
        )
        whole = words if words[0] == "dvc" else (sys.executable, "-m", "finetrace.cli", *words)
        done = command(project, *whole, check=False)
    finally:
        (project / "params.yaml").write_text(before)
    assert done.returncode != 0 and "hulsl" in done.stdout + done.stderr and "hulls" in done.stdout + done.stderr


@pytest.mark.parametrize("lens", [*OF_FINE_TUNINGS, *OF_MASKED_WORDS])
def test_lenses_write_their_headline_metrics(project: Path, lens: str):
    written: dict[str, float] = {}
    for path in (project / "outputs").rglob(f"{lens}/metrics.json"):
        written |= json.loads(path.read_text())
    assert written, f"{lens} looks nowhere: tests/pipeline/params.yaml needs a line in `look`"
    headlines = (OF_FINE_TUNINGS | OF_MASKED_WORDS)[lens]
    lacking = [h.metric for h in headlines if value_of(written, h.mean_of or h.metric) is None]
    assert lacking == ["age_of_acquisition"] * (lens == "pairs")  # twelve steps teach no grammar


def test_numbers_at_checkpoints_are_the_courses_of_the_one_table(project: Path):
    """What a lens says over steps stands in its curves.csv, for MLflow, and in its table, for leads and maps."""
    table = pd.read_parquet(project / "atlas/table.parquet")
    rows = table[(table["step"] >= 0) & (table["model"] != "") & (table["label"] == "")].dropna(subset="value")
    found = courses_by_metric(rows)
    lenses = [path.parent.name for path in LENSES.glob("*/headlines.py")]
    declared = [(lens, number) for lens in lenses for number in at_checkpoints_of(lens) if number.metric]
    compared = set()
    for lens, number in declared:
        for _, courses in found[lens, number.metric]:
            for place, (steps, values) in courses.items():
                of_step = numbers_at(project / "outputs" / place / lens / "curves.csv", lens, [number])
                known = [(value, other) for step, value in zip(steps.tolist(), values, strict=True)
                         for other in of_step.get(step, {}).values()]
                assert known and all(value == pytest.approx(other, rel=1e-5) for value, other in known), (number, place)
                compared.add((lens, number))
    assert compared == set(declared) and len(declared) > 12


@pytest.mark.slow
def test_publishing_again_restores_a_deleted_store(project: Path):
    def names() -> list[str]:
        with contextlib.closing(sqlite3.connect(project / "mlflow.db")) as database:
            return sorted(r[0] for r in database.execute(
                "select value from tags join runs using (run_uuid) where key = 'finetrace.name' and "
                "lifecycle_stage = 'active'"))

    (project / "mlflow.db").unlink()
    shutil.rmtree(project / "mlruns")
    repro(project)
    first = names()
    command(project, sys.executable, "pipelines/publish.py")
    assert names() == first and KEY in first


@pytest.mark.slow
def test_the_lens_of_the_guide_works_as_written(project: Path):
    add_lens_of_the_guide(project)
    command(project, sys.executable, "-m", "pytest", "-n", "0", "tests/lenses/norms")
    made = set(ran(repro(project)))
    runs = [f"toy_micro-{name}_s1" for name in ("sentiment_ft", "sentiment_ft-tuned", "pos_ft")]
    assert {s for s in made if "norms" in s} == {f"norms@{key}" for key in runs}
    assert "atlas" in made and "publish" in made
    assert json.loads((project / RUN / "norms/metrics.json").read_text())["norm/layer-02/last"] > 0
    assert '<h2 id="norms">' in (project / "atlas/runs/toy_micro-sentiment_ft_s1.html").read_text()
    assert "norm, after" in {one["heading"] for one in study_of(project / "atlas")["headlines"]}
    published = json.loads((project / "mlruns/published.json").read_text())
    assert any(r["name"] == "norms@toy_micro-sentiment_ft_s1" for r in published)
