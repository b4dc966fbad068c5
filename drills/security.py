"""What must never happen: code of others run, secrets told, doors opened, files written elsewhere."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.pipeline.toy import environment
from tests.training_fixtures import model_folder, sentences

from drills.frame import CannotRun, Row, main, must
from drills.toy import (
    SMALL,
    begin,
    cloned,
    copied,
    family,
    finetrace,
    finished,
    kill,
    last_words,
    repro,
    tracebacks,
    wait_for,
)

ROOT = Path(__file__).parents[1]
PICKLES = ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "model.pt", "rng_state.pth", "cache.pkl",
           "vocab.npy", "tokenizer.pickle", "data.joblib")
SECRETS = {"HF_TOKEN": "hf_drillSecretOne111", "MLFLOW_TRACKING_PASSWORD": "drillSecretTwo222",
           "MLFLOW_TRACKING_TOKEN": "drillSecretThree333", "AWS_SECRET_ACCESS_KEY": "drillSecretFour444",
           "GITHUB_TOKEN": "ghp_drillSecretFive555", "DATABASE_URL": "postgresql://me:drillSecretSix666@127.0.0.1/x",
           "OPENAI_API_KEY": "sk-drillSecretSeven777"}
HOSTILE = ("</script>", "<script>alert(1)</script>", "<img src=x onerror=alert(2)>", "&lt;b&gt; {{ 7 * 7 }} ${7}")


class _Trap:
    """An object that makes a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def _trap(folder: Path, mark: Path) -> None:
    """Booby-trapped pickles under the names that libraries look for."""
    for name in PICKLES:
        if not (folder / name).exists():
            (folder / name).write_bytes(pickle.dumps(_Trap(mark)))


def pickles(folder: Path) -> str:
    mark = folder / "unpickled"
    model_folder(folder / "model")
    project = copied(folder, "small")
    shutil.copytree(folder / "model", folder / "weights-by-pickle")
    (folder / "weights-by-pickle" / "model.safetensors").unlink()
    traps = [folder / "model", folder / "weights-by-pickle", project]
    traps += [path.parent for name in ("data", "models", "outputs") for path in (project / name).rglob("manifest.json")]
    traps += [path for path in (project / ".finetrace").rglob("*") if path.is_dir()]
    traps += [path for path in (project / ".dvc" / "cache").rglob("*") if path.is_dir()]
    for place in traps:
        _trap(place, mark)
    params = project / "params.yaml"
    small = params.read_text()
    params.write_text(small + "model_folders: {safe: {path: ../model}, trap: {path: ../weights-by-pickle}}\n"
                      "series: {of-safe: {model: safe, tasks: [micro-sentiment]}, of-trap: {model: trap, tasks: "
                      "[micro-sentiment]}}\n")
    with_pickles = repro(project, check=False)
    must(not mark.exists(), "a pickle was loaded by repro")
    must("model-folder@trap" in with_pickles.stdout and with_pickles.returncode == 1
         and not tracebacks(with_pickles.stdout), f"weights by pickle: {last_words(with_pickles.stdout)}")
    texts, labels = sentences(24, 1)
    csv = "".join(f"{text},{label}\n" for text, label in zip(texts, labels, strict=True))
    (folder / "rows.csv").write_text("text,label\n" + csv)
    for words in (("show",), ("doctor", "--verify"), ("look", "../weights-by-pickle", "--task", "../rows.csv"),
                  ("look", "../model", "--task", "../rows.csv")):
        said = finetrace(project, *words, check=False).stdout
        must(not mark.exists() and not tracebacks(said), f"{' '.join(words)}: {last_words(said)}")
    must("first-look/index.html" in said, f"the model without faults was not looked at: {last_words(said)}")
    return (f"{len(traps) * len(PICKLES)} traps in {len(traps)} folders, none loaded by repro, show, doctor, look; a "
            "model whose weights are pickled is refused")


def remote_code(folder: Path) -> str:
    mark = folder / "ran"
    for name, changes in {"known": {}, "unknown": {"model_type": "theirs"}}.items():
        model_folder(folder / name)
        for file in ("modeling_theirs.py", "configuration_theirs.py", "tokenization_theirs.py"):
            (folder / name / file).write_text(f"import os\nos.mkdir({str(mark)!r})\n")
        for file, key in (("config.json", "AutoModel"), ("tokenizer_config.json", "AutoTokenizer")):
            path = folder / name / file
            theirs = {"AutoConfig": "configuration_theirs.C", key: f"modeling_theirs.{key}"}
            path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": theirs} | changes))
    project = copied(folder, "small")
    params = project / "params.yaml"
    params.write_text(params.read_text() + "model_folders: {known: {path: ../known}, unknown: {path: ../unknown}}\n"
                      "series: {a: {model: known, tasks: [micro-sentiment]}, b: {model: unknown, tasks: "
                      "[micro-sentiment]}}\n")
    done = repro(project, check=False, variables={"HF_HUB_TRUST_REMOTE_CODE": "1"})
    must(not mark.exists(), "code of the folder ran")
    must("model-folder@unknown" in done.stdout and "auto_map" in done.stdout and not tracebacks(done.stdout),
         f"not refused: {last_words(done.stdout)}")
    must("done     model-folder@known" in done.stdout, f"the known architecture: {last_words(done.stdout)}")
    return "an unknown architecture is refused and names auto_map; a known one is read without its code"


def inside(folder: Path) -> str:
    """The whole system under an overlay that collects every write."""
    script = """set -e
        mount -t tmpfs -o size=2g tmpfs "$1"
        mkdir "$1/up" "$1/work" "$1/new"
        mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/new"
        for name in proc dev sys; do mount --rbind "/$name" "$1/new/$name"; done
        chroot "$1/new" sh -c 'cd "$1" && "$2" -m finetrace.cli repro && "$2" -m finetrace.cli publish' sh "$2" "$3"
        cd "$1/up" && find . -type f > "$4/written" """
    project = cloned(folder, "small")
    over, seen = folder / "over", Path(tempfile.mkdtemp(prefix="drills-", dir="/dev/shm"))
    over.mkdir()
    home = folder / "home"
    home.mkdir()
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", over, project, sys.executable, seen], text=True,
                          env=environment(project, HOME=str(home)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        if not (seen / "written").exists():
            words = last_words(done.stdout)
            if "mount" in words or "unshare" in words or "Operation not permitted" in words:
                raise CannotRun(f"no overlay of one's own: {words}")
            must(False, words)
        written = [f"/{line[2:]}" for line in (seen / "written").read_text().splitlines()]
    finally:
        shutil.rmtree(seen)
    site = environment(project)["DVC_SITE_CACHE_DIR"]
    fonts = f"{home}/.cache/matplotlib/"
    outside = [path for path in written if not path.startswith((f"{project}/", f"{site}/", fonts))]
    must(len(written) > 50, f"only {len(written)} files were seen: the drill is wrong")
    must(not outside, f"{len(outside)} files outside the project: {outside[:4]}")
    return (f"{len(written)} files written, all in the project and DVC_SITE_CACHE_DIR, but for matplotlib's list of "
            "fonts in ~/.cache; nothing is left in temporary folders")


def loopback(folder: Path) -> str:
    """What listens while a study runs, and while the pages are served as `make ui` does it."""
    if shutil.which("ss") is None:
        raise CannotRun("no command ss")
    project, seen = cloned(folder, "small"), set[str]()
    running = begin(project, "repro", "--jobs", "2")
    while running.poll() is None:
        seen |= set(_listening(family(running.pid)))
        time.sleep(1)
    must(running.returncode == 0, "the study failed")
    must(all(address.startswith(("127.0.0.1:", "[::1]:")) for address in seen), f"a study listens at {sorted(seen)}")
    said = subprocess.run(["make", "-n", "ui", "PORT=5871"], cwd=ROOT, capture_output=True, text=True).stdout
    line = next(line for line in said.splitlines() if "mlflow ui" in line)
    words = [str(Path(sys.executable).parent / "mlflow"), *line.split()[1:]]
    server = subprocess.Popen(words, cwd=project, env=environment(project), stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        up = wait_for(lambda: any(":5871" in one for one in _listening(family(server.pid))), 120, every=2)
        must(up, "no pages came up")
        served = _listening(family(server.pid))
    finally:
        kill(family(server.pid))
        server.wait()
    must(all(address.startswith("127.0.0.1:") for address in served), f"the pages are served at {served}")
    opened = sorted(seen) or "nothing"
    return f"a running study listens on {opened}, the pages on {', '.join(sorted(set(served)))}"


def _listening(pids: list[int]) -> list[str]:
    """Addresses at which these processes listen for TCP and UDP."""
    lines = subprocess.run(["ss", "-Hlntup"], capture_output=True, text=True).stdout.splitlines()
    return [line.split()[4] for line in lines if any(f"pid={pid}," in line for pid in pids)]


def secrets(folder: Path) -> str:
    project = cloned(folder, "small")
    params = project / "params.yaml"
    said = repro(project, variables=SECRETS).stdout
    broken = params.read_text() + "tracking: {uri: 'postgresql://me:drillSecretEight888@127.0.0.1:1/x'}\n"
    params.write_text(broken)
    said += finetrace(project, "publish", check=False, variables=SECRETS).stdout
    said += finetrace(project, "doctor", check=False, variables=SECRETS).stdout
    params.write_text(broken.replace("tracking:", "# tracking:"))
    secret = re.compile(rb"drillSecret\w+\d{3}")
    files = [path for path in project.parent.rglob("*") if path.is_file() and path != params]
    told = {path.relative_to(folder): match for path in files if (match := secret.findall(path.read_bytes()))}
    must(not told, f"secrets stand in {told}")
    must("drillSecret" not in said, f"secrets were printed: {re.findall('drillSecret.*', said)[:3]}")
    return f"{len(SECRETS) + 1} secrets in none of {len(files)} files (outputs, logs, mlflow.db, atlas) and no line"


def html(folder: Path) -> str:
    """Texts and class names with markup, in a task of one's own, through a training to the atlas."""
    import pyarrow.parquet as pq

    rows = {split: pq.read_table(finished("small") / "data" / "micro-sentiment" / f"{split}.parquet").to_pylist()
            for split in ("train", "validation")}
    project_rows = folder / "rows"
    project_rows.mkdir()
    for split, ours in rows.items():
        names = ["<b>bad</b>" + HOSTILE[1], "good\"'><i>"]
        lines = [json.dumps({"text": f"{row['text_a']} {row['text_a']} {HOSTILE[number % 4]} {row['text_a']}",
                             "label": names[row["label"]]}) for number, row in enumerate(ours)]
        (project_rows / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    study = SMALL.replace("tasks: {micro-sentiment: {source: micro}}",
                          "task_files: {hostile: {path: ../rows, text: [text], label: label}}")
    project = copied(folder, "small")
    (project / "params.yaml").write_text(study.replace("task: micro-sentiment", "task: hostile"))
    repro(project)
    pages = list((project / "atlas").rglob("*.html"))
    raw = re.compile(r"<script>alert|<img src=x|<b>bad|'><i>", re.IGNORECASE)
    wrong = [page.name for page in pages if raw.search(page.read_text("utf-8"))]
    must(pages and not wrong, f"markup of the data stands in {wrong}")
    there = sum("alert" in page.read_text("utf-8") for page in pages) or sum(
        b"alert" in path.read_bytes() for path in (project / "atlas").rglob("*") if path.is_file())
    return f"{len(pages)} pages, markup of the data raw in none of them (shown as text in {there} files)"


def audit(folder: Path) -> str:
    tool = shutil.which("pip-audit")
    if tool is None:
        raise CannotRun("pip-audit is not installed, and its database is elsewhere (pip install pip-audit)")
    done = subprocess.run([tool, "--no-deps", "--disable-pip", "-r", ROOT / "requirements.lock"], capture_output=True,
                          text=True)
    if "ConnectionError" in done.stderr or "ServiceError" in done.stderr:
        raise CannotRun(f"pip-audit cannot reach its database: {last_words(done.stderr, 1)}")
    must(done.returncode == 0, last_words(done.stdout + done.stderr, 6))
    return last_words(done.stderr, 1)


def lock(folder: Path) -> str:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and line[0] != "#"]
    loose = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.!]+", line)]
    must(lines and not loose, f"not pinned: {loose[:3]}")
    return f"{len(lines)} packages, each with one version, none from an address"


ROWS = [
    Row("pickles", "Booby-trapped pickles in model folders, data, results, caches and unfinished work",
        "None is ever loaded; pickled weights are refused", pickles),
    Row("remote code", "Model folders with auto_map and code of their own, HF_HUB_TRUST_REMOTE_CODE=1",
        "The code never runs", remote_code),
    Row("writes outside", "A study and its publication under an overlay that collects every write",
        "Nothing outside the project but caches of libraries", inside),
    Row("open ports", "Look at what listens while a study runs and while `make ui` serves", "Loopback only", loopback),
    Row("secrets", "Tokens and passwords in the environment and in an address; run, publish, fail, ask the doctor",
        "They stand in no file and no line", secrets),
    Row("HTML", "Texts and class names with scripts and tags, through a training into the atlas",
        "Markup of the data is text everywhere", html),
    Row("dependency audit", "pip-audit of requirements.lock", "No known vulnerability", audit),
    Row("pinned packages", "Read requirements.lock", "One version each, no addresses", lock),
]

if __name__ == "__main__":
    main("security", ROWS)
