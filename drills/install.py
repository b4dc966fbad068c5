"""Other machines: a bare Debian, a container without network and rights, and what is measured elsewhere."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from drills.frame import CannotRun, Row, main, must
from drills.toy import SMALL, last_words, same_results

ROOT = Path(__file__).parents[1]
INSIDE = "/opt/finetrace"
UID = "12345:12345"  # a user that the image does not know
TEST = "tests/unit/test_cli.py"


def _run(*words: str | Path, seconds: float = 3000, **more: str) -> str:
    done = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          stdin=subprocess.DEVNULL, timeout=seconds, env={**os.environ, **more}, errors="replace")
    must(done.returncode == 0, f"{' '.join(map(str, words))[:120]}: {last_words(done.stdout)}")
    return done.stdout


def debian(folder: Path) -> str:
    """README's two commands in a root that holds Debian, git, make and Python, and nothing else, on a small study."""
    if shutil.which("debootstrap") is None:
        raise CannotRun("debootstrap is not installed (apt-get install debootstrap)")
    if os.getuid() != 0:
        raise CannotRun("chroot needs root")
    if os.environ.get("DRILLS_DEBIAN") != "1":
        raise CannotRun("downloads Debian and all packages anew; DRILLS_DEBIAN=1 does it")
    root = folder / "root"
    _run("debootstrap", "--variant=minbase", "--include=ca-certificates,git,make,python3,python3-venv", "bookworm",
         root)
    _run("git", "clone", "-q", ROOT, root / INSIDE[1:])
    (root / INSIDE[1:] / "params.yaml").write_text(SMALL)
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    inside = _in_root(root)
    said = _run(*inside, "make", "--no-print-directory", "-C", INSIDE, "repro")
    count = same_results(root / INSIDE[1:])
    tested = _run(*inside, "make", "--no-print-directory", "-C", INSIDE, "test", f"PYTEST_ARGS=-n 0 -q {TEST}")
    return (f"`make repro` of a small study: {last_words(said, 1)}, {count} files as on this machine; `make test`, one "
            f"file: {last_words(tested, 1)}")


def _in_root(root: Path) -> tuple[str, ...]:
    """Words that run a command in this root with a clean environment, and with what pip is set up to use here.

    The mounts are of that command alone and end with it.
    """
    settings = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    named = [Path(word) for word in settings.replace("'", " ").replace("file://", " ").split() if word[0] == "/"]
    bound = [Path("/proc"), *(path.parent if path.name == "simple" else path for path in named if path.is_dir())]
    for path in bound:
        (root / path.relative_to("/")).mkdir(parents=True, exist_ok=True)
    for path in [path for path in [*named, Path("/etc/pip.conf")] if path.is_file()]:
        (root / path.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.relative_to("/"))
    mounts = "".join(f"mount --rbind {shlex.quote(str(path))} {shlex.quote(f'{root}{path}')}; " for path in bound)
    variables = [f"{key}={value}" for key, value in os.environ.items() if key.startswith(("PIP_", "HTTP", "http"))]
    return ("unshare", "-m", "sh", "-ec", f'{mounts}exec chroot {shlex.quote(str(root))} "$@"', "sh", "env", "-i",
            "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *variables)


def container(folder: Path) -> str:
    """Build the image; run the default study in it as nobody, without network, on a volume of its own."""
    engine = _engine()
    tag, volume = "finetrace-drill", f"finetrace-drill-{os.getpid()}"
    base = os.environ.get("BASE_IMAGE")
    _run(engine, "build", "-t", tag, *(["--build-arg", f"BASE_IMAGE={base}"] if base else []), ROOT)
    limits = ("--rm", "--network", "none", "--user", UID, "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
              "-v", f"{volume}:/home/finetrace/project")
    try:
        said = _run(engine, "run", *limits, tag)
        again = _run(engine, "run", *limits, tag)
        who = _run(engine, "run", *limits, tag, "sh", "-c", "id -u; find . -mindepth 1 ! -user $(id -u) | head")
    finally:
        subprocess.run([engine, "volume", "rm", "-f", volume], capture_output=True)
    must("up to date" in again, f"the second run: {last_words(again)}")
    must(who.split() == [UID.partition(":")[0]], f"files of others: {who[:200]}")
    return f"default study as user {UID} without network: {last_words(said, 1)}; the second run has nothing to do"


def _engine() -> str:
    """docker or podman, whichever answers."""
    seen = []
    for name in ("docker", "podman"):
        if shutil.which(name) is None:
            seen.append(f"no {name}")
            continue
        done = subprocess.run([name, "info"], capture_output=True, text=True)
        if done.returncode == 0:
            return name
        seen.append(f"{name}: {last_words(done.stderr, 1)}")
    raise CannotRun(f"no container engine ({'; '.join(seen)})")


def speed(folder: Path) -> str:
    count = len(list((ROOT / "benchmarks").glob("[a-z]*.py")))
    raise CannotRun(f"{count} benchmarks need idle cores for a quarter of an hour: `make bench`, bars in "
                    "docs/results.md")


ROWS = [
    Row("bare Debian", "debootstrap with git, make, python3; clone, `make repro` of a small study, a test",
        "Both commands of the README work; the same bytes as here", debian),
    Row("container", "Build the image; the default study as an unknown user, no network, no capabilities; once more",
        "Done; the second run has nothing to do", container),
    Row("speed", "`make bench`", "Every benchmark within its bar", speed),
]

if __name__ == "__main__":
    main("install", ROWS)
