"""Checkpoints of any trajectory: which, by what digest, and where their head, base and tokenizer lie."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.hub import Hub, commit
from tests.outputs import manifest
from tests.training_fixtures import bert_config, model_folder, tokenizer

from finetrace.errors import FinetraceError
from finetrace.models.timeline import TOKENIZER, chosen_steps, open_timeline, whole_model
from finetrace.store.checkpoints import mark
from finetrace.store.manifest import complete


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> list[Path]:
    """Three models of one architecture with different weights."""
    from safetensors.torch import load_file, save_file

    folders = []
    for i in range(3):
        folder = model_folder(tmp_path_factory.mktemp("model") / str(i), bert_config())
        file = folder / "model.safetensors"
        save_file({name: values + i for name, values in load_file(file).items()}, file, metadata={"format": "pt"})
        folders.append(folder)
    return folders


def trajectory(folder: Path, weights: list[Path], steps=(0, 10, 40), **facts) -> Path:
    for step, source in zip(steps, weights, strict=True):
        target = folder / "checkpoints" / f"step-{step:08d}"
        target.mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            shutil.copy(source / name, target / name)
        mark(target, step)
    done = manifest("trajectory", "pretrain", "toy")
    done.facts = {"model": "toy"} | facts
    complete(folder, done)
    return folder


def base(models: Path, **facts) -> Path:
    """A finished model folder without files; facts: tell it from others."""
    folder = models / "toy"
    folder.mkdir(parents=True, exist_ok=True)
    done = manifest("model", "model", "toy")
    done.facts = facts
    complete(folder, done)
    return folder


def test_a_pretraining_as_a_timeline(tmp_path, weights):
    folder = trajectory(tmp_path / "outputs/toy/pretrain/trajectory", weights)
    found = open_timeline(folder, tmp_path / "models")
    assert (found.steps, found.axis, found.place) == ([0, 10, 40], "pre-training steps", "toy/pretrain")
    assert found.tokenizer == tmp_path / "models/toy" and found.head is None and found.base is None
    assert len({found.digest(s) for s in found.steps}) == 3
    with found.checkpoint(10) as one:
        assert (one / "model.safetensors").read_bytes() == (weights[1] / "model.safetensors").read_bytes()


def test_equal_weights_have_equal_digests_wherever_they_lie(tmp_path, weights):
    first = open_timeline(trajectory(tmp_path / "outputs/a/pretrain/trajectory", weights), tmp_path / "models")
    second = open_timeline(trajectory(tmp_path / "outputs/b/adapt/trajectory", weights[:1], (7,)), tmp_path / "models")
    assert second.digest(7) == first.digest(0) != first.digest(10)
    assert second.axis == "adaptation steps"


def test_a_fine_tuning_takes_head_and_base_from_its_model(tmp_path, weights):
    folder = base(tmp_path / "models")
    found = open_timeline(trajectory(tmp_path / "outputs/toy/task/ft/s1/trajectory", weights), tmp_path / "models")
    assert found.axis == "fine-tuning steps" and found.head == found.base == found.tokenizer == folder


def test_the_axis_that_an_adaptation_states_counts(tmp_path, weights):
    folder = trajectory(tmp_path / "outputs/toy/adapt/trajectory", weights, axis="pre-training steps")
    assert open_timeline(folder, tmp_path / "models").axis == "pre-training steps"


def test_steps_that_are_chosen():
    where = Path("outputs/toy/pretrain/trajectory")
    assert chosen_steps([0, 4, 9], "all", where) == [0, 4, 9]
    assert chosen_steps([0, 4, 9], "ends", where) == [0, 9]
    assert chosen_steps([0, 4, 9], [4, 100], where) == [0, 4, 9]
    with pytest.raises(FinetraceError, match=r"step 5 was not recorded in .*there are 0, 4, 9"):
        chosen_steps([0, 4, 9], [5], where)
    with pytest.raises(FinetraceError, match="has no checkpoints"):
        chosen_steps([], "all", where)


def test_a_whole_model_of_a_checkpoint_loads(tmp_path, weights):
    from finetrace.models.load import load_encoder, load_tokenizer

    folder = trajectory(tmp_path / "outputs/toy/pretrain/trajectory", weights)
    tokenizer().save_pretrained(tmp_path / "models/toy")
    with whole_model(open_timeline(folder, tmp_path / "models"), 40, tmp_path / "scratch") as model:
        assert load_encoder(model).config.num_hidden_layers == 2 and len(load_tokenizer(model)) > 5
    assert not list((tmp_path / "scratch").iterdir())


# The hub's client reads HF_ENDPOINT once, when it is imported: a process of its own.
CLIENT = """
import json, sys
from pathlib import Path
from finetrace.config.base import parse
from finetrace.config.series import SeriesSettings
from finetrace.errors import FinetraceError
from finetrace.models.series import resolve_series
from finetrace.models.timeline import open_timeline
from finetrace.store.manifest import Manifest, complete
case = json.load(sys.stdin)
out = Path(case["out"])
out.mkdir(parents=True)
try:
    facts = resolve_series("demo", parse(SeriesSettings, case["series"], "series"), out)
    done = Manifest(kind="trajectory", stage="series", name="demo", key="k", settings={}, inputs={}, seeds={})
    done.facts = facts
    complete(out, done)
    timeline = open_timeline(out, Path("models"), case.get("wanted", "all"))
    found = {}
    for step in case.get("use", timeline.steps):
        with timeline.checkpoint(step) as folder:
            found[step] = sorted(p.name for p in folder.iterdir())
    left = [str(p) for p in Path(case["home"]).rglob("*.safetensors")]
    print("RESULT " + json.dumps({"steps": timeline.steps, "digests": timeline.digests, "files": found, "left":
    len(left)}))
except FinetraceError as error:
    print("RESULT " + json.dumps({"error": str(error)}))
"""


def ask(hub: Hub, tmp_path: Path, **case) -> dict:
    home = tmp_path / "home"
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1",
           "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    case = {"out": str(tmp_path / "out"), "home": str(home)} | case
    out = subprocess.run([sys.executable, "-c", CLIENT], input=json.dumps(case), env=env, text=True,
                         capture_output=True, timeout=120)
    line = next((li for li in out.stdout.splitlines() if li.startswith("RESULT ")), None)
    assert line, out.stderr
    return json.loads(line.removeprefix("RESULT "))


@pytest.fixture
def served(tmp_path, weights) -> Path:
    root = tmp_path / "hub"
    for step, source in zip((0, 20, 60), weights, strict=True):
        folder = root / "models" / "lab" / f"seed_0-step_{step}k" / "main"
        shutil.copytree(source, folder)
        tokenizer().save_pretrained(folder)
    shutil.copytree(root / "models/lab/seed_0-step_20k",
                    root / "models/lab/seed_0-step_40k")  # another's weights under its name
    for revision, source in (("step0", weights[0]), ("step7", weights[1])):
        shutil.copytree(source, root / "models/lab/one-repository" / revision)
    for file in (root / "models/lab/one-repository/step0").glob("tokenizer*"):
        file.unlink()
    return root


def test_a_published_series_is_fetched_one_checkpoint_at_a_time(served, tmp_path):
    with Hub(served) as hub:
        found = ask(hub, tmp_path, series={"id": "lab/seed_0-step_{step}k", "steps": [0, 20, 60], "unit": 1000},
                    wanted=[20000], use=[60000])
    assert found["steps"] == [0, 20000, 60000] and len(set(found["digests"].values())) == 3
    assert {"config.json", "model.safetensors"} <= set(found["files"]["60000"])
    series = json.loads((tmp_path / "out/series.json").read_text())["checkpoints"]
    assert series["20000"]["revision"] == commit(served / "models/lab/seed_0-step_20k/main")
    assert (tmp_path / "out" / TOKENIZER / "tokenizer.json").is_file()


def test_a_series_of_revisions_and_weights_that_are_not_kept(served, tmp_path):
    with Hub(served) as hub:
        found = ask(hub, tmp_path, series={"id": "lab/one-repository", "revision": "step{step}", "steps": [0, 7],
                                           "keep": False})
    assert found["steps"] == [0, 7] and found["left"] == 0


def test_phases_of_a_repository_follow_each_other_on_one_axis(served, weights, tmp_path):
    shutil.copytree(weights[2], served / "models/lab/one-repository/decay3")
    phases = [{"revision": "step{step}", "steps": [0, 7]}, {"revision": "decay{step}", "steps": [3]}]
    with Hub(served) as hub:
        series = {"id": "lab/one-repository", "phases": phases, "tokenizer": "lab/seed_0-step_20k"}
        found = ask(hub, tmp_path, series=series, use=[10])
    assert found["steps"] == [0, 7, 10] and found["files"]["10"]


def test_two_names_of_one_checkpoint_are_refused(served, tmp_path):
    with Hub(served) as hub:
        error = ask(hub, tmp_path, series={"id": "lab/seed_0-step_{step}k", "steps": [0, 20, 40]})["error"]
    assert "lab/seed_0-step_40k at main has the same weights as lab/seed_0-step_20k at main" in error


@pytest.mark.parametrize(("series", "words"), [
    ({"id": "lab/seed_0-step_{step}k", "steps": [0, 30]},
     "lab/seed_0-step_30k at revision main could not be looked up"),
    ({"id": "lab/one-repository", "revision": "step{step}", "steps": [0]},
     "has no tokenizer; name the model whose it is"),
])
def test_series_errors_say_what_and_where(served, tmp_path, series, words):
    with Hub(served) as hub:
        assert words in ask(hub, tmp_path, series=series)["error"]


def test_digests_cover_base_and_adapters(tmp_path, weights):
    folder = tmp_path / "outputs/toy/task/lp/s1/trajectory"
    target = folder / "checkpoints/step-00000000"
    target.mkdir(parents=True)
    (target / "head.safetensors").write_bytes(b"head")
    mark(target, 0)
    done = manifest("trajectory", "train", "toy")
    done.facts = {"model": "toy"}
    complete(folder, done)
    digests = []
    for facts in ({"parameters": 1}, {"parameters": 2}, {"parameters": 1}):
        base(tmp_path / "models", **facts)
        digests.append(open_timeline(folder, tmp_path / "models").digest(0))
    assert digests[0] == digests[2] != digests[1]
