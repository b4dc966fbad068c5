"""A tracking server for several machines, and a remote for results: the services of compose.yaml's profile `server` as
processes on loopback, and DVC remotes in a folder and behind S3's interface."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import os
import re
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from tests import postgres
from tests.pipeline.toy import command, committed, environment, ran
from tests.publishing import opened, snapshot

from drills.frame import CannotRun, Failed, Row, main, must
from drills.toy import copied, family, finetrace, kill, last_words, repro, same_bytes, tracebacks, wait_for
from finetrace.layout import Layout
from finetrace.study import Study, load_study

ROOT = Path(__file__).parents[1]
PUBLISHERS = 8
STARTS = 180.0  # seconds that a server may take until it answers
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
NAMES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


def service_words(database: str, port: int, artifacts: Path) -> list[str]:
    """The command of compose.yaml's service `tracking`, at addresses of this machine."""
    words = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]["tracking"]["command"]
    ours = {"postgresql+psycopg2://mlflow@database/mlflow": database, "0.0.0.0": "127.0.0.1", "5000": str(port),
            "/home/finetrace/project/artifacts": str(artifacts)}
    return [ours.get(word, re.sub(r"^\$\{\w+-(.*)\}$", r"\1", word)) for word in words]


@contextlib.contextmanager
def _tracking(folder: Path, admin: str = "") -> Iterator[str]:
    """A server over a PostgreSQL of its own; its address. admin: the administrator's password; without it the server
    asks for none."""
    if missing := postgres.absent():
        raise CannotRun(f"{' and '.join(missing)} of PostgreSQL are not in PATH (Debian: apt-get install postgresql, "
                        "then add /usr/lib/postgresql/15/bin)")
    _needs("psycopg2", "psycopg2-binary")
    password, port = secrets.token_urlsafe(), postgres.free_port()
    with postgres.server(password) as plain:
        database = plain.replace("postgresql:", "postgresql+psycopg2:")
        words = service_words(database, port, folder / "artifacts")
        known = environment(folder, PGPASSWORD=password, PYTHONPATH=os.environ.get("PYTHONPATH", ""))
        if admin:
            (folder / "basic_auth.ini").write_text((ROOT / "docker" / "basic_auth.ini").read_text("utf-8").replace(
                "postgresql+psycopg2://mlflow@database/mlflow", database))
            known |= {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"), "MLFLOW_AUTH_ADMIN_PASSWORD": admin,
                      "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe()}
        else:
            words = words[:words.index("--app-name")]
        with open(folder / "server.log", "w", encoding="utf-8") as log, \
                _process([str(Path(sys.executable).parent / words[0]), *words[1:]], folder, known, log) as running:
            address = f"http://127.0.0.1:{port}"
            wait_for(lambda: running.poll() is not None or _answers(f"{address}/health"), STARTS, every=1)
            must(_answers(f"{address}/health"), f"no answer: {last_words((folder / 'server.log').read_text())}")
            yield address


@contextlib.contextmanager
def _process(words: list[str], folder: Path, variables: Mapping[str, str], log: Any
             ) -> Iterator[subprocess.Popen[bytes]]:
    """A program in the background, ended with all that it started."""
    running = subprocess.Popen(words, cwd=folder, env=dict(variables), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield running
    finally:
        kill(family(running.pid))
        running.wait()


def _answers(address: str, method: str = "GET") -> bool:
    """Whether a server answers with success."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=5) as answer:
            return bool(answer.status < 300)
    except OSError:
        return False


def _needs(module: str, package: str) -> None:
    """Raise CannotRun where a package is not installed."""
    if importlib.util.find_spec(module) is None:
        raise CannotRun(f"{package} is not installed (pip install {package})")


def publishers(folder: Path) -> str:
    """The same study on eight machines, all of which publish at the same time."""
    alone = copied(folder, to="alone/project")
    finetrace(alone, "publish")
    layout, study = _opened(alone)
    expected = _content(layout, study, folder / "of-alone")
    with _tracking(folder) as address:
        machines = [copied(folder, to=f"machine-{number}/project") for number in range(PUBLISHERS)]
        running = [subprocess.Popen([sys.executable, "-m", "finetrace.cli", "publish"], cwd=machine, text=True,
                                    env=environment(machine, MLFLOW_TRACKING_URI=address), stdin=subprocess.DEVNULL,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for machine in machines]
        said = [process.communicate(timeout=600)[0] for process in running]
        codes = [process.returncode for process in running]
        must(codes == [0] * PUBLISHERS, f"exit codes {codes}: {last_words(said[codes.index(max(codes))])}")
        there = dataclasses.replace(study, tracking=dataclasses.replace(study.tracking, uri=address))
        runs = [run.name for run in opened(layout, there).runs()]
        twice = sorted({name for name in runs if runs.count(name) > 1})
        must(not twice, f"{len(twice)} of {len(set(runs))} runs stand there more than once: {', '.join(twice[:3])}")
        seen = _content(layout, there, folder / "of-server")
    wrong = sorted(name for name in expected.keys() | seen.keys() if expected.get(name) != seen.get(name))
    must(not wrong, f"other content than of one publisher: {', '.join(wrong[:4])}")
    made = [text for text in said if f"published: {len(runs)} new" in text]
    must(len(made) == 1, f"{len(made)} publishers say that they made all runs")
    return (f"{len(seen) - 1} runs, each once, with the tags, points, {len(seen['models'])} models and artifacts' "
            "bytes of one publisher's; one made them, the others found them")


def _opened(project: Path) -> tuple[Layout, Study]:
    layout = Layout(project, project)
    return layout, load_study(layout.params)


def _content(layout: Layout, study: Study, folder: Path) -> dict[str, Any]:
    """Everything in the store: runs by name, the bytes of their artifacts, and under `models` the checkpoints."""
    found, store = snapshot(layout, study), opened(layout, study)
    for run in store.runs():
        target = folder / run.run_id
        target.mkdir(parents=True)
        for path in found[run.name]["artifacts"]:
            store.client.download_artifacts(run.run_id, path, str(target))
        found[run.name]["bytes"] = {
            path.relative_to(target).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in target.rglob("*") if path.is_file()}
    models = store.client.search_logged_models([store.experiment_id], max_results=100)
    found["models"] = sorted((model.name, model.params["weights"], model.tags["sha256"], sorted(
        (metric.key, metric.step, metric.value) for metric in model.metrics or ())) for model in models)
    return found


def passwords(folder: Path) -> str:
    """The server asks for passwords: right ones, wrong ones, none, and a user who may only read."""
    _needs("flask_wtf", "Flask-WTF")
    admin, ann = secrets.token_urlsafe(), secrets.token_urlsafe()
    project, wrong = copied(folder, "small"), secrets.token_urlsafe()
    params = project / "params.yaml"
    with _tracking(folder, admin) as address:
        right = _as("admin", admin, address)
        said = finetrace(project, "publish", variables=right).stdout
        must("published: " in said, f"with the right password: {last_words(said)}")
        _administrator(project, right, "create_user('ann', os.environ['ANN'])", ann)
        refused = {"a wrong password": _as("admin", wrong, address), "none": {"MLFLOW_TRACKING_URI": address},
                   "a reader": _as("ann", ann, address)}
        sentences = {}
        for who, variables in refused.items():
            if who == "a reader":  # has something to write
                params.write_text(params.read_text().replace("permutations: 20", "permutations: 40"))
                repro(project)
            done = finetrace(project, "publish", check=False, variables=variables)
            said += done.stdout + finetrace(project, "doctor", check=False, variables=variables).stdout
            sentences[who] = last_words(done.stdout, 1)
            must(done.returncode == 1 and not tracebacks(done.stdout), f"{who}: {done.returncode}, {sentences[who]}")
        _administrator(project, right, f"grant_user_permission('ann', 'experiment', '{_number(said)}', 'EDIT')", ann)
        may = finetrace(project, "publish", variables=refused["a reader"]).stdout
        must("published: " in may, f"with the permission EDIT: {last_words(may)}")
        for who in ("a wrong password", "none"):
            must(all(name in sentences[who] for name in NAMES), f"{who}: {sentences[who]}")
    files = [path for path in project.rglob("*") if path.is_file()]
    holds = [path for path in files for secret in (admin, ann, wrong) if secret.encode() in path.read_bytes()]
    must(not holds and not any(secret in said for secret in (admin, ann, wrong)), f"passwords stand in {holds[:3]}")
    return f"the right one publishes; a wrong one: “{sentences['a wrong password']}”; in none of {len(files)} files"


def _administrator(project: Path, variables: Mapping[str, str], does: str, ann: str) -> None:
    """What docs/scale.md tells the administrator to do."""
    script = (f"import os, mlflow.server\nmlflow.server.get_app_client('basic-auth', "
              f"os.environ['MLFLOW_TRACKING_URI']).{does}")
    done = subprocess.run([sys.executable, "-c", script], env=environment(project, **variables, ANN=ann), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    must(done.returncode == 0, f"{does}: {last_words(done.stdout)}")


def _number(said: str) -> str:
    """The experiment that `finetrace publish` has named."""
    return re.findall(r"/#/experiments/(\d+)/", said)[-1]


def _as(user: str, password: str, address: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_URI": address, NAMES[0]: user, NAMES[1]: password}


def on_a_folder(folder: Path) -> str:
    project = copied(folder)
    (folder / "store").mkdir()
    command(project, "dvc", "remote", "add", "-d", "store", str(folder / "store"))
    return _travelled(folder, project)


def on_s3(folder: Path) -> str:
    _needs("moto", "moto[server]")
    _needs("dvc_s3", "dvc-s3")
    port = postgres.free_port()
    address = f"http://127.0.0.1:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "drill", "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(),
            "AWS_DEFAULT_REGION": "us-east-1"}
    project = copied(folder)
    with open(folder / "s3.log", "w", encoding="utf-8") as log, _process(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], folder, os.environ, log):
        must(wait_for(lambda: _answers(f"{address}/bucket", "PUT"), STARTS, every=1), "moto's server does not answer")
        command(project, "dvc", "remote", "add", "-d", "store", "s3://bucket/study")
        command(project, "dvc", "remote", "modify", "store", "endpointurl", address)
        saw = _travelled(folder, project, keys)
    holds = [path for path in folder.rglob("*") if path.is_file()
             and keys["AWS_SECRET_ACCESS_KEY"].encode() in path.read_bytes()]
    must(not holds, f"the secret key stands in {holds[:3]}")
    return saw


def _travelled(folder: Path, project: Path, keys: Mapping[str, str] | None = None) -> str:
    """Push to the remote of a finished project; clone, pull, run and publish elsewhere."""
    committed(project, "remote")
    _dvc(project, "push", keys)
    command(project, "git", "clone", "-q", ".", str(folder / "clone"))
    clone = folder / "clone"
    _dvc(clone, "pull", keys)
    done = repro(clone)
    worked = set(ran(done)) - {"publish"}
    must(not worked, f"made again: {', '.join(sorted(worked)[:5])}")
    count = same_bytes(clone)
    made = [_published(place) for place in (project, clone)]
    must(made[0] == made[1], f"published there {made[0]}, here {made[1]}")
    must((clone / "atlas" / "index.html").is_file(), "no atlas")
    changed = command(clone, "git", "status", "--porcelain").stdout
    must(not changed, f"the clone's tree is not clean: {changed[:200]}")
    return f"nothing ran, {count} files the same, {made[1]} runs published, the atlas is there, the tree is clean"


def _dvc(project: Path, word: str, keys: Mapping[str, str] | None) -> None:
    done = subprocess.run(["dvc", word, "-q"], cwd=project, env=environment(project, **(keys or {})), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=300)
    must(done.returncode == 0, f"dvc {word}: {last_words(done.stdout)}")


def _published(project: Path) -> int:
    """How many runs a project has in a store of its own."""
    for path in project.glob("mlflow.db*"):
        path.unlink()
    said = finetrace(project, "publish").stdout
    if (number := re.search(r"published: (\d+) new", said)) is None:
        raise Failed(f"nothing was published: {last_words(said)}")
    return int(number[1])


ROWS = [
    Row("publishers at once", f"{PUBLISHERS} copies of a study publish at the same time to MLflow over PostgreSQL, "
        "with the command of compose.yaml", "Every run once, equal to what one publisher gives", publishers),
    Row("passwords of the server",
        "Publish with the right password, a wrong one, none, and as a user who may only read",
        "The right one works; else a sentence that names what to do, exit code 1, no password in it", passwords),
    Row("remote in a folder", "dvc push to a folder; clone, dvc pull, finetrace repro, finetrace publish",
        "Everything visible, nothing runs, the clone's tree is clean", on_a_folder),
    Row("remote on S3", "The same through S3's interface (moto)",
        "Everything visible, nothing runs, no key in any file", on_s3),
]

if __name__ == "__main__":
    main("server", ROWS)
