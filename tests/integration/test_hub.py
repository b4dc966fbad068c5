"""Data sets and models from the hub, over HTTP from a hub on loopback: the real client code, without the network."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.hub import Hub, commit
from tests.stages import ask_study

from finetrace.config.base import parse
from finetrace.config.data import TaskSettings
from finetrace.data.build import build_task
from finetrace.data.registry import resolve
from finetrace.store.manifest import read_manifest

ROWS = [
    {"sentence": f"{word} film number {i} — été", "label": i % 2, "idx": i}
    for i, word in enumerate(["fine", "awful", "great", "dull", "lovely", "bad"] * 4)
]
CARD = """---
dataset_info:
- config_name: sst2
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': negative
          '1': positive
  - name: idx
    dtype: int32
configs:
- config_name: cola
  data_files:
  - {split: train, path: cola/train-*}
- config_name: sst2
  data_files:
  - {split: train, path: sst2/train-*}
  - {split: validation, path: sst2/validation-*}
---
"""

# Runs in a process of its own, because the hub clients read HF_ENDPOINT once, when they are imported.
CLIENT = """
import json, sys
from pathlib import Path
from finetrace.config.base import parse
from finetrace.config.data import TaskSettings
from finetrace.data.build import build_task
from finetrace.data.registry import resolve
from finetrace.errors import FinetraceError
from finetrace.models.fetch import describe, fetch_folder, fetch_hub, randomise
for case in json.load(sys.stdin):
    out = Path(case["out"])
    try:
        if "task" in case:
            task = resolve(case["name"], parse(TaskSettings, case["task"], "params.yaml"))
            result = build_task(case["name"], task, out, root=Path("."), seed=0)
        else:
            out.mkdir(parents=True)
            result = fetch_hub(case["name"], case["id"], case.get("revision", "main"), out) if "id" in case else \\
                fetch_folder(case["name"], Path(case["folder"]), out)
            if "random" in case:
                randomise(out, case["random"])
            result |= describe(out)
        result = {"facts": result}
    except FinetraceError as error:
        result = {"error": str(error)}
    print("RESULT " + json.dumps(result), flush=True)
"""


def environment(hub: Hub, home: Path) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return env | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": ":".join(p for p in sys.path if p),
        "NO_PROXY": "127.0.0.1",
    }


def ask(hub: Hub, home: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answer to each case: {"facts": ...} or {"error": message}."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT],
        input=json.dumps(cases),
        text=True,
        capture_output=True,
        timeout=240,
        env=environment(hub, home),
        cwd=home.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [
        json.loads(line.removeprefix("RESULT ")) for line in done.stdout.splitlines() if line.startswith("RESULT ")
    ]
    assert len(found) == len(cases)
    return found


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, micro: Any) -> Path:
    """What the hub serves: GLUE's and FLUE's layouts, and models with and without safetensors."""
    root = tmp_path_factory.mktemp("hub")
    glue = root / "datasets" / "nyu-mll" / "glue" / "main"
    write_parquet(glue / "sst2" / "train-00000-of-00001.parquet", ROWS)
    write_parquet(glue / "sst2" / "validation-00000-of-00001.parquet", ROWS[:6])
    write_parquet(glue / "cola" / "train-00000-of-00001.parquet", ROWS)
    (glue / "README.md").write_text(CARD)
    french = [{"idx": str(r["idx"]), "text": r["sentence"], "label": r["label"]} for r in ROWS]
    for repo, name in (("flue", "{}/0000.parquet"), ("flue-flat", "{}-00000-of-00001.parquet")):
        branch = root / "datasets" / "GETALP" / repo / "refs-convert-parquet"
        for config in ("CLS", "PAWS-X"):
            for split, rows in (("train", french), ("test", french[:4])):
                write_parquet(branch / config / name.format(split), rows if config == "CLS" else [{"other": 1}])
        script = root / "datasets" / "GETALP" / repo / "main"
        script.mkdir()
        (script / f"{repo}.py").write_text("raise SystemExit('code from the hub ran')\n")
    for name in ("tiny", "pickled", "remote"):
        shutil.copytree(micro.model, root / "models" / "acme" / name / "main")
    (root / "models" / "acme" / "pickled" / "main" / "model.safetensors").rename(
        root / "models" / "acme" / "pickled" / "main" / "pytorch_model.bin"
    )
    extra = root / "models" / "acme" / "tiny" / "main"
    (extra / "onnx").mkdir()
    (extra / "onnx" / "model.safetensors").write_bytes(b"not wanted")
    (extra / "pytorch_model.bin").write_bytes(b"not wanted")
    (extra / "modeling_tiny.py").write_text("raise SystemExit('code from the hub ran')\n")
    return root


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    (folder / "home").mkdir()
    return folder


TASKS: dict[str, dict[str, Any]] = {
    "sst2": {},
    "flue-cls": {},
    "flue-flat": {"like": "flue-cls", "id": "GETALP/flue-flat"},
    "named-by-hub": {"source": "hub", "id": "nyu-mll/glue", "config": "sst2", "text": ["sentence"], "label": "label"},
    "no-dataset": {"like": "sst2", "id": "nyu-mll/nothing"},
    "no-config": {"like": "sst2", "config": "sst3"},
    "no-revision": {"like": "sst2", "revision": "v9"},
    "no-split": {"like": "sst2", "splits": {"train": "train", "validation": "dev"}},
    "no-column": {"like": "sst2", "text": ["text"]},
    "no-validation": {"source": "hub", "id": "nyu-mll/glue", "config": "cola", "text": ["sentence"], "label": "label"},
    "turned-labels": {"like": "sst2", "label_names": ["positive", "negative"]},
    "script-only": {"source": "hub", "id": "GETALP/flue", "config": "CLS", "text": ["text"], "label": "label"},
}


@pytest.fixture(scope="module")
def tasks(served: Path, work: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """The answer of every case in TASKS, from one process."""
    with Hub(served) as hub:
        answers = ask(
            hub, work / "home", [{"name": n, "task": t, "out": str(work / "tasks" / n)} for n, t in TASKS.items()]
        )
    yield dict(zip(TASKS, answers, strict=True))


def test_glue_from_the_hub_is_what_files_give(tasks, served, work):
    facts = tasks["sst2"]["facts"]
    glue = served / "datasets" / "nyu-mll" / "glue" / "main"
    assert facts["rows"] == {"train": 24, "validation": 6}
    assert facts["origin"]["train"] == {
        "id": "nyu-mll/glue",
        "config": "sst2",
        "revision": commit(glue),
        "split": "train",
    }
    settings = {
        "like": "sst2",
        "source": "files",
        "path": str(glue / "sst2"),
        "splits": {s: f"{s}-00000-of-00001.parquet" for s in ("train", "validation")},
    }
    local = build_task(
        "sst2", resolve("sst2", parse(TaskSettings, settings, "x")), work / "local", root=Path("/"), seed=0
    )
    assert {k: v for k, v in local.items() if k != "origin"} == {k: v for k, v in facts.items() if k != "origin"}
    for split in ("train", "validation"):
        assert (work / "local" / f"{split}.parquet").read_bytes() == (
            work / "tasks" / "sst2" / f"{split}.parquet"
        ).read_bytes()


def test_label_names_come_from_the_hub(tasks):
    assert tasks["named-by-hub"]["facts"]["label_names"] == ["negative", "positive"]
    assert tasks["named-by-hub"]["facts"]["rows"] == {"train": 24, "validation": 6}


@pytest.mark.parametrize("name", ["flue-cls", "flue-flat"])
def test_the_hubs_own_parquet_conversion(tasks, work, name):
    facts = tasks[name]["facts"]
    assert facts["rows"] == {"train": 22, "validation": 2, "test": 4}
    texts = [
        t
        for split in ("train", "validation")
        for t in pq.read_table(work / "tasks" / name / f"{split}.parquet")["text_a"].to_pylist()
    ]
    assert sorted(texts) == sorted(r["sentence"] for r in ROWS)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "no-dataset",
            ["tasks.no-dataset: hub data set nyu-mll/nothing/sst2 at revision main could not be read", "NotFound"],
        ),
        ("no-config", ["tasks.no-config: hub data set nyu-mll/glue/sst3", "sst3", "cola", "sst2"]),
        ("no-revision", ["nyu-mll/glue/sst2 at revision v9 could not be read", "RevisionNotFound"]),
        ("no-split", ["has no split 'dev'; it has train, validation; set `splits`"]),
        ("no-column", ["has no column 'text' (tasks.no-column); its columns are sentence, label, idx"]),
        ("no-validation", ["has no validation split; name one in `splits` or set `holdout`"]),
        ("turned-labels", ["label_names are positive, negative, but the data set numbers them negative, positive"]),
        ("script-only", ["hub data set GETALP/flue/CLS at revision main could not be read"]),
    ],
)
def test_hub_errors_say_what_and_where(tasks, work, name, words):
    message = tasks[name]["error"]
    assert all(word in message for word in words), message
    assert not list((work / "tasks").glob(f"{name}/*"))


# --- models


MODELS: dict[str, dict[str, Any]] = {
    "tiny": {"id": "acme/tiny"},
    "random": {"id": "acme/tiny", "random": 1},
    "again": {"id": "acme/tiny", "random": 1},
    "other": {"id": "acme/tiny", "random": 2},
    "pickled": {"id": "acme/pickled"},
    "absent": {"id": "acme/absent"},
    "no-revision": {"id": "acme/tiny", "revision": "v9"},
    "folder": {"folder": ...},
    "pickled-folder": {"folder": ...},
    "no-folder": {"folder": "nowhere"},
}


@pytest.fixture(scope="module")
def models(served: Path, work: Path, micro: Any) -> dict[str, dict[str, Any]]:
    MODELS["folder"]["folder"] = str(micro.model)
    MODELS["pickled-folder"]["folder"] = str(served / "models" / "acme" / "pickled" / "main")
    with Hub(served) as hub:
        answers = ask(
            hub, work / "home", [{"name": n, "out": str(work / "models" / n), **m} for n, m in MODELS.items()]
        )
        assert not any("onnx" in path or path.endswith((".bin", ".py")) for path in hub.requests), (
            "only what is needed is fetched"
        )
    return dict(zip(MODELS, answers, strict=True))


def test_model_from_the_hub_or_a_folder_is_copied_as_it_is(models, served, work):
    facts = models["tiny"]["facts"]
    assert (facts["id"], facts["model_type"], facts["hidden_size"]) == ("acme/tiny", "bert", 16)
    assert facts["revision"] == commit(served / "models" / "acme" / "tiny" / "main")
    source = served / "models" / "acme" / "remote" / "main"
    for name in ("tiny", "folder"):
        copied = work / "models" / name
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in copied.iterdir()}
        assert {p.name: p.read_bytes() for p in copied.iterdir()} == {
            p.name: (source / p.name).read_bytes() for p in copied.iterdir()
        }
    assert models["folder"]["facts"]["folder"] == "model"


def test_random_weights_are_new_and_follow_the_seed(models, work):
    from safetensors.numpy import load_file

    weights = {n: load_file(work / "models" / n / "model.safetensors") for n in ("tiny", "random", "again", "other")}
    key = next(k for k in weights["tiny"] if k.endswith("query.weight"))
    assert {k: v.shape for k, v in weights["random"].items()} == {k: v.shape for k, v in weights["tiny"].items()}
    assert all((weights["random"][k] == weights["again"][k]).all() for k in weights["random"])
    assert (weights["random"][key] != weights["tiny"][key]).all() and (
        weights["random"][key] != weights["other"][key]
    ).all()
    assert (work / "models" / "random" / "tokenizer.json").read_bytes() == (
        work / "models" / "tiny" / "tokenizer.json"
    ).read_bytes()


@pytest.mark.parametrize("name", ["tiny", "random", "folder"])
def test_fetched_models_load_as_classifiers(models, work, name):
    from safetensors.numpy import load_file

    from finetrace.models.load import load_classifier, load_tokenizer

    folder = work / "models" / name
    model = load_classifier(folder, ["no", "maybe", "yes"], seed=3)
    stored = load_file(folder / "model.safetensors")
    loaded = {k.removeprefix("bert."): v.numpy() for k, v in model.state_dict().items() if k.startswith("bert.")}
    assert set(loaded) >= set(stored) and all((loaded[k] == v).all() for k, v in stored.items()), (
        "the encoder's weights are the folder's"
    )
    batch = load_tokenizer(folder)(["the film", "a long way home"], padding=True, return_tensors="pt")
    assert model(**batch).logits.shape == (2, 3)
    assert model.config.id2label == {0: "no", 1: "maybe", 2: "yes"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pickled", ["models.pickled: acme/pickled at main has no *.safetensors, only pytorch_model.bin", "refs/pr/N"]),
        ("absent", ["models.absent: acme/absent at revision main could not be fetched: RepositoryNotFoundError"]),
        ("no-revision", ["models.no-revision: acme/tiny at revision v9 could not be fetched: RevisionNotFoundError"]),
        ("pickled-folder", ["model_folders.pickled-folder:", "has no *.safetensors; pickled weights are not loaded"]),
        (
            "no-folder",
            ["model_folders.no-folder: nowhere has no config.json; name a folder written by save_pretrained"],
        ),
    ],
)
def test_model_errors_say_what_and_where(models, work, name, words):
    message = models[name]["error"]
    assert all(word in message for word in words), message
    assert list((work / "models" / name).iterdir()) == []


# --- whole stages


def project(folder: Path) -> Path:
    folder.mkdir()
    ask_study(
        folder,
        {
            "study": {"name": "demo"},
            "tasks": {"sst2": {"max_rows": {"train": 10}}},
            "models": {"tiny": {"id": "acme/tiny", "weights": "random"}},
        },
    )
    return folder


def test_the_stage_of_a_model_writes_a_finished_folder(served, tmp_path, run_script):
    folder = project(tmp_path / "project")
    with Hub(served) as hub:
        done = run_script("pipelines/model.py", "tiny", cwd=folder, **environment(hub, tmp_path / "home"),
                          HF_HUB_OFFLINE="0", HF_DATASETS_OFFLINE="0")
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(folder / "models/tiny")
    assert (manifest.stage, manifest.name) == ("model", "tiny")
    assert [p.name for p in (folder / "models").iterdir()] == ["tiny"]


def test_without_a_network_the_cached_rows_are_taken(served, tmp_path, run_script):
    folder, home = project(tmp_path / "project"), tmp_path / "home"
    with Hub(served) as hub:
        known = environment(hub, home)
        online, offline = ({**known, "HF_HUB_OFFLINE": value, "HF_DATASETS_OFFLINE": value} for value in "01")
        assert run_script("pipelines/data.py", "sst2", cwd=folder, **online).returncode == 0
        first = (folder / "data" / "sst2" / "manifest.json").read_bytes()
        assert [p.name for p in (folder / "data").iterdir()] == ["sst2"]
        manifest = read_manifest(folder / "data" / "sst2")
        assert (manifest.stage, manifest.name) == ("data", "sst2")
        assert manifest.facts["rows"] == {"train": 10, "validation": 6}
        shutil.rmtree(folder / "data")
        asked = len(hub.requests)
        done = run_script("pipelines/data.py", "sst2", cwd=folder, **offline)
        assert done.returncode == 0, done.stderr
        assert (folder / "data" / "sst2" / "manifest.json").read_bytes() == first and len(hub.requests) == asked
    shutil.rmtree(folder / "data")
    ref = home / "hub" / "datasets--nyu-mll--glue" / "refs" / "main"
    ref.write_text("0" * 40)
    done = run_script("pipelines/data.py", "sst2", cwd=folder, **offline)
    told = f"are of commit {commit(served / 'datasets/nyu-mll/glue/main')}, not {'0' * 40}; name"
    assert done.returncode == 1 and told in done.stderr
    done = run_script("pipelines/data.py", "sst2", cwd=folder, **{**offline, "HF_HOME": str(tmp_path / "empty")})
    assert done.returncode == 1 and "could not be read" in done.stderr and not (folder / "data" / "sst2").exists()


@pytest.mark.parametrize(("stage", "item", "suffix", "how"), [
    ("data", "sst2", ".parquet", "drop"), ("model", "tiny", ".safetensors", "cut"),
    pytest.param("data", "sst2", ".parquet", "cut", marks=pytest.mark.slow),
    pytest.param("model", "tiny", ".safetensors", "drop", marks=pytest.mark.slow)])
def test_a_lost_connection_leaves_nothing_half_written(served, tmp_path, run_script, stage, item, suffix, how):
    folder = project(tmp_path / "project")
    with Hub(served, **{how: lambda path: path.endswith(suffix)}) as hub:
        done = run_script(f"pipelines/{stage}.py", item, cwd=folder, **environment(hub, tmp_path / "home"),
                          HF_HUB_OFFLINE="0", HF_DATASETS_OFFLINE="0")
    assert done.returncode == 1
    assert f"finetrace: stage {stage}@{item} failed: {'tasks' if stage == 'data' else 'models'}.{item}:" in done.stderr
    assert "Traceback" not in done.stderr
    kept = folder / ("data" if stage == "data" else "models")
    assert list(kept.iterdir()) == []


def test_no_hub_at_all(served, tmp_path, run_script):
    folder = project(tmp_path / "project")
    with Hub(served) as hub:
        pass
    done = run_script("pipelines/data.py", "sst2", cwd=folder, **environment(hub, tmp_path / "home"),
                      HF_HUB_OFFLINE="0")
    assert done.returncode == 1
    assert "tasks.sst2: hub data set nyu-mll/glue/sst2 at revision main could not be read: Connect" in done.stderr
