"""What a hub can do to a study that fetches a model and a task from it. The hub is on loopback."""

import itertools
import shutil
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tests.hub import Hub, commit
from tests.pipeline.toy import command, environment, make_project
from tests.training_fixtures import model_folder, sentences

from drills.frame import Row, main, must
from drills.toy import finetrace, last_words, tracebacks
from finetrace.store.manifest import read_manifest

STUDY = """
study: {name: hub}
models: {tiny: {id: acme/tiny, revision: main}}
tasks: {sst2: {max_rows: {train: 8}}}
runs: [{model: tiny, task: sst2}]
"""
ITEMS = ("model@tiny", "data@sst2")
CARD = """---
configs:
- config_name: sst2
  data_files:
  - {split: train, path: sst2/train-*}
  - {split: validation, path: sst2/validation-*}
---
"""


def _project(folder: Path, params: str = STUDY) -> Path:
    """A project whose study asks the hub, and the hub's files beside it. It is made once, then copied."""
    model_folder(folder / "hub" / "models" / "acme" / "tiny" / "main")
    glue = folder / "hub" / "datasets" / "nyu-mll" / "glue" / "main"
    (glue / "sst2").mkdir(parents=True)
    (glue / "README.md").write_text(CARD)
    for split, rows in (("train", 16), ("validation", 8)):
        texts, labels = sentences(rows, rows)
        table = pa.table({"idx": list(range(rows)), "sentence": texts, "label": labels})
        pq.write_table(table, glue / "sst2" / f"{split}-00000-of-00001.parquet")
    made = folder.parent / "toy"
    if not made.is_dir():
        make_project(made, STUDY)
    project = folder / "project"
    subprocess.run(["cp", "-a", made, project], check=True)
    if params != STUDY:
        (project / "params.yaml").write_text(params)
        finetrace(project, "plan")
    return project


def _ask(project: Path, address: str, home: str = "home", **extra: str) -> subprocess.CompletedProcess[str]:
    """`dvc repro model@tiny data@sst2` with a hub at this address."""
    variables = {"HF_ENDPOINT": address, "HF_HOME": str(project.parent / home), "HF_HUB_OFFLINE": "0",
                 "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", **extra}
    return subprocess.run(["dvc", "repro", "--keep-going", *ITEMS], cwd=project, stdout=subprocess.PIPE,
                          env=environment(project, **variables), stderr=subprocess.STDOUT, text=True, timeout=600,
                          stdin=subprocess.DEVNULL)


def _refused(done: subprocess.CompletedProcess[str], project: Path, *words: str) -> str:
    """A refusal: in a sentence with these words, no trace of Python's, nothing half written. Returns the sentence."""
    said = [line for line in done.stdout.splitlines() if "failed: " in line and line.startswith("finetrace: stage")]
    must(done.returncode, f"exit code 0: {last_words(done.stdout)}")
    must(not tracebacks(done.stdout), f"a trace of Python: {last_words(done.stdout)}")
    must(said and all(word in " ".join(said) for word in words), f"not told: {last_words(done.stdout, 8)}")
    left = [path for name in ("models", "data") for path in (project / name).glob("*")
            if not (path / "manifest.json").is_file()]
    must(not left, f"half written: {left}")
    return said[0].partition("failed: ")[2][:160]


def _well(project: Path, folder: Path) -> str:
    """The same command with a well hub; returns the commit of the model that is there then."""
    with Hub(folder / "hub") as hub:
        done = _ask(project, hub.url)
    must(done.returncode == 0, f"with a well hub: {last_words(done.stdout)}")
    read_manifest(project / "data" / "sst2", verify="content")
    served = commit(folder / "hub" / "models" / "acme" / "tiny" / "main")
    there = str(read_manifest(project / "models" / "tiny", verify="content").facts["revision"])
    must(there == served, f"model of commit {there}, served is {served}")
    return there


def dropped(folder: Path) -> str:
    project = _project(folder)
    weights = (".safetensors", ".parquet")
    with Hub(folder / "hub", cut=lambda path: path.endswith(weights)) as hub:
        said = _refused(_ask(project, hub.url), project, "models.tiny", "tasks.sst2")
    _well(project, folder)
    return f"both items failed in a sentence (“{said}”), nothing half written; with a well hub the command went on"


def slow(folder: Path) -> str:
    project = _project(folder)

    def late(_: str) -> bool:
        time.sleep(0.4)
        return False

    began = time.monotonic()
    with Hub(folder / "hub", busy=late) as hub:
        done = _ask(project, hub.url)
    must(done.returncode == 0, last_words(done.stdout))
    return f"both items done after {time.monotonic() - began:.0f} s and {len(hub.requests)} late answers"


def busy(folder: Path) -> str:
    project, count = _project(folder), itertools.count()
    with Hub(folder / "hub", busy=lambda path: path.startswith("api/models")) as hub:
        said = _refused(_ask(project, hub.url), project, "models.tiny", hub.url, "HF_HUB_OFFLINE=1")
    with Hub(folder / "hub", busy=lambda path: path.startswith("api/models") and next(count) < 2) as hub:
        done = _ask(project, hub.url)
    must(done.returncode == 0, f"503 twice: {last_words(done.stdout)}")
    return f"503 for ever: “{said}”; 503 twice: asked again, done"


def absent(folder: Path) -> str:
    project = _project(folder, STUDY.replace("acme/tiny", "acme/absent"))
    with Hub(folder / "hub") as hub:
        said = _refused(_ask(project, hub.url), project, "models.tiny", "acme/absent")
    return f"“{said}”; the data set was fetched all the same"


def revision(folder: Path) -> str:
    project = _project(folder, STUDY.replace("main", "v9"))
    with Hub(folder / "hub") as hub:
        said = _refused(_ask(project, hub.url), project, "models.tiny", "v9")
    return f"“{said}”"


def offline(folder: Path) -> str:
    project = _project(folder)
    first = _well(project, folder)
    config = folder / "hub" / "models" / "acme" / "tiny" / "main" / "config.json"
    config.write_text(config.read_text().replace('"hidden_dropout_prob": 0.1', '"hidden_dropout_prob": 0.2'))
    must(commit(config.parent) != first, "the hub's commit did not change: the drill is wrong")
    for name in ("models", "data", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(project / name)
    command(project, "git", "checkout", "-q", ".")
    with Hub(folder / "hub") as hub:
        done = _ask(project, hub.url, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
        must(done.returncode == 0 and not hub.requests, f"asked {hub.requests}: {last_words(done.stdout)}")
    there = read_manifest(project / "models" / "tiny", verify="content").facts["revision"]
    must(there == first, f"commit {there}, cached is {first}")
    empty = _ask(project, hub.url, home="empty", HF_HUB_OFFLINE="1")
    must(empty.returncode == 0, f"what is finished was asked for again: {last_words(empty.stdout)}")
    return f"the cached commit {first[:8]}, though the hub has a newer one; not one request"


ROWS = [
    Row("connection dropped", "Cut every download of weights and rows in the middle, then a well hub",
        "Both items fail in a sentence, nothing half written; the same command goes on", dropped),
    Row("slow", "Every answer comes 0.4 s late", "The items wait and are done", slow),
    Row("HTTP 503", "Answer 503 for ever, then twice only",
        "Named with address and remedy; asked again when it passes", busy),
    Row("HTTP 404", "Ask for a model that the hub does not have",
        "The model's item fails in a sentence; the other is done", absent),
    Row("wrong revision", "Ask for a revision that is not there", "The item fails and names the revision", revision),
    Row("offline, warm cache", "Fetch, let the hub have a newer commit, delete everything, HF_HUB_OFFLINE=1",
        "The cached commit is taken, nothing is asked of the hub", offline),
]

if __name__ == "__main__":
    main("hub", ROWS)
