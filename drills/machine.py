"""What a machine can do to a study: disks, limits, users' settings, paths, git, clocks."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.pipeline.toy import command, environment, make_project

from drills.frame import CannotRun, Row, main, must
from drills.toy import (
    SMALL,
    cloned,
    copied,
    finetrace,
    finished,
    last_words,
    repro,
    same_bytes,
    same_results,
    tracebacks,
)

NO_SPACE = "no space is left on its disk"
RESULTS = ("data", "models", "outputs", "atlas")
ON_TMPFS = ("data", "models", "outputs", "inputs", ".dvc/cache")


def _namespace() -> None:
    """Raise CannotRun where mounts of one's own are not allowed."""
    if shutil.which("unshare") is None:
        raise CannotRun("no command unshare")
    done = subprocess.run(["unshare", "-rm", "true"], capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"no mounts of one's own: {done.stderr.strip()}")


def full(folder: Path) -> str:
    """A tmpfs of few MiB holds the results; it grows, as after making room, and the same command goes on."""
    _namespace()
    project, ends = cloned(folder, "small"), []
    kept = folder / "kept"
    for mib in (1, 2, 3, 64):
        done = finetrace(project, "repro", "--jobs", "1", check=False, before=_on_a_tmpfs(mib, kept))
        must(not tracebacks(done.stdout), f"{mib} MiB: a trace of Python: {last_words(done.stdout)}")
        ends.append(f"{mib} MiB {'done' if done.returncode == 0 else 'refused'}")
        if done.returncode:
            must(NO_SPACE in done.stdout, f"{mib} MiB: {last_words(done.stdout)}")
    must("refused" in ends[0] and "done" in ends[-1], f"{ends}: {last_words(done.stdout)}")
    for name in ON_TMPFS:  # what it held at the end
        shutil.rmtree(project / name)
        shutil.copytree(kept / name, project / name)
    return f"{', '.join(ends)}; each refusal names path and need; {same_bytes(project, 'small')} files the same"


def _on_a_tmpfs(mib: int, kept: Path) -> tuple[str, ...]:
    """Words that run a command with results and DVC's cache on a disk of this size; what it holds is kept in a folder
    between two runs."""
    kept.mkdir(exist_ok=True)
    folders = " ".join(ON_TMPFS)
    script = f"""set -e
        mkdir -p {folders}
        disk=$(mktemp -d)
        mount -t tmpfs -o size={mib}m tmpfs $disk
        cp -a {kept}/. $disk
        for name in {folders}; do mkdir -p $disk/$name; mount --bind $disk/$name $name; done
        code=0
        "$@" || code=$?
        rm -rf {kept}
        cp -a $disk {kept}
        exit $code"""
    return "unshare", "-rm", "sh", "-c", script, "sh"


def limited(folder: Path) -> str:
    """RLIMIT_FSIZE: no file may become longer than this."""
    project = cloned(folder, "small")
    limit = ("sh", "-c", 'ulimit -f 512; exec "$@"', "sh")
    done = finetrace(project, "repro", "--jobs", "1", check=False, before=limit)
    must(done.returncode == 1 and not tracebacks(done.stdout), last_words(done.stdout))
    repro(project)
    return f"“{last_words(done.stdout, 4)[:160]}”; without the limit {same_bytes(project, 'small')} files the same"


def read_only(folder: Path) -> str:
    _namespace()
    project = cloned(folder, "small")
    words = ("unshare", "-rm", "sh", "-c", 'mount --bind . . && mount -o remount,ro,bind . && cd "$PWD" && exec "$@"',
             "sh")
    done = finetrace(project, "repro", check=False, before=words)
    must(done.returncode == 1 and "read-only" in done.stdout and not tracebacks(done.stdout), last_words(done.stdout))
    return f"“{last_words(done.stdout)[:200]}”"


def handles(folder: Path) -> str:
    """64 open files at a time."""
    project = cloned(folder, "small")
    done = finetrace(project, "repro", "--jobs", "2", check=False,
                     before=("sh", "-c", 'ulimit -n 64; exec "$@"', "sh"))
    must(not tracebacks(done.stdout), f"a trace of Python: {last_words(done.stdout)}")
    if done.returncode:
        must("Too many open files" in done.stdout or "ulimit" in done.stdout, last_words(done.stdout))
        repro(project)
    ended = "done" if done.returncode == 0 else f"refused: “{last_words(done.stdout)[:120]}”"
    return f"{ended}; {same_bytes(project, 'small')} files the same"


def _plain(*without: str, **extra: str) -> Callable[[Path], str]:
    """A drill: the small study in a clone, with other variables."""

    def drill(folder: Path) -> str:
        project = cloned(folder, "small")
        done = repro(project, without=without, variables=extra)
        must(not tracebacks(done.stdout), last_words(done.stdout))
        return f"done and published; {same_bytes(project, 'small')} files the same"

    return drill


def odd_path(folder: Path) -> str:
    project = cloned(folder, "small", to="été, 影 & it's/my project")
    repro(project)
    finetrace(project, "show")
    finetrace(project, "doctor")
    return f"done in {project.relative_to(folder)}; {same_bytes(project, 'small')} files the same"


def subfolder(folder: Path) -> str:
    """The project is a folder of somebody's repository: DVC's root lies in it, git's above."""
    outer = folder / "outer"
    project = outer / "analysis" / "finetrace"
    project.parent.mkdir(parents=True)
    make_project(project, SMALL)
    shutil.rmtree(project / ".git")
    (outer / "paper.tex").write_text("text of theirs\n")
    command(outer, "git", "init", "-q", "-b", "main")
    command(outer, "git", "add", "-A")
    command(outer, "git", "commit", "-qm", "outer")
    done = repro(project, check=False)
    if done.returncode:
        must(not tracebacks(done.stdout) and "git" in done.stdout, last_words(done.stdout))
        return f"refused: “{last_words(done.stdout)[:200]}”"
    changed = command(outer, "git", "status", "--porcelain").stdout.splitlines()
    own = ("analysis/finetrace/", f"analysis/site-{project.name}/")  # the latter is where these drills put DVC's memory
    must(all(any(name in line for name in own) for line in changed), f"changed outside: {changed}")
    return f"done; nothing of theirs was touched; {same_results(project)} files the same"


def no_git(folder: Path) -> str:
    """Neither a repository nor the command, as docs/container.md does it: core.no_scm."""
    project = cloned(folder, "small")
    shutil.rmtree(project / ".git")
    refused = repro(project, check=False)
    must(not tracebacks(refused.stdout), f"a trace of Python: {last_words(refused.stdout)}")
    if refused.returncode:
        must("git" in refused.stdout, last_words(refused.stdout))
    (project / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    tools = folder / "bin"
    tools.mkdir()
    (tools / "sh").symlink_to("/bin/sh")
    done = repro(project, variables={"PATH": str(tools)})
    said = f"told: “{last_words(refused.stdout)[:140]}”" if refused.returncode else "done without a repository"
    return f"{said}; with core.no_scm and no git on the PATH done ({last_words(done.stdout, 1)[:60]}), " \
           f"{same_results(project)} files the same"


def cache_types(folder: Path) -> str:
    ends = []
    for kind in ("hardlink", "symlink", "reflink"):
        project = copied(folder, "small", to=kind)
        command(project, "dvc", "config", "--local", "cache.type", kind)
        _without_results(project)
        done = repro(project, check=False)
        must(not tracebacks(done.stdout), f"{kind}: {last_words(done.stdout)}")
        if done.returncode:
            must(kind == "reflink" and "reflink" in done.stdout, f"{kind}: {last_words(done.stdout)}")
            ends.append(f"{kind} refused, as this file system has none")
            continue
        same_bytes(project, "small")
        again = repro(project)
        must("up to date" in again.stdout, f"{kind}: the second time: {last_words(again.stdout)}")
        params = project / "params.yaml"
        params.write_text(params.read_text().replace("window: 8", "window: 9"))
        repro(project)
        params.write_text(params.read_text().replace("window: 9", "window: 8"))
        _without_results(project)
        repro(project)
        same_bytes(project, "small")
        said = finetrace(project, "doctor", "--verify", check=False).stdout
        must("is damaged" not in said and "is not what" not in said, f"{kind}: {last_words(said)}")
        ends.append(f"{kind} restored, changed, restored")
    return f"{'; '.join(ends)}; same bytes, cache whole"


def _without_results(project: Path) -> None:
    for name in RESULTS:
        shutil.rmtree(project / name)


def umask(folder: Path) -> str:
    project = cloned(folder, "small")
    repro(project, before=("sh", "-c", 'umask 077; exec "$@"', "sh"))
    files = [path for name in (*RESULTS, "settings", "mlruns") for path in (project / name).rglob("*")]
    files = [path for path in [*files, *project.glob("mlflow.db*")] if path.name != "README.md"]  # which git has laid
    open_to_others = [path.relative_to(project) for path in files if path.stat().st_mode & 0o077]
    must(not open_to_others, f"{len(open_to_others)} can be read by others: {open_to_others[:3]}")
    return (f"done; none of {len(files)} files of results and of MLflow can be read by others; "
            f"{same_bytes(project, 'small')} files the same")


def clock(folder: Path) -> str:
    """The clock went back by more than a year: everything was written in the future.

    It is not turned back under a process: libfaketime, which could, breaks Python's time.sleep."""
    project = copied(folder, "small")
    soon = time.time() + 86_400 * 400
    for path in sorted(project.rglob("*")):
        if path.is_file() and ".git" not in path.parts:
            os.utime(path, (soon, soon))
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("window: 8", "window: 9"))
    changed = repro(project)
    must("done     infodynamics" in changed.stdout, f"a change was not noticed: {last_words(changed.stdout)}")
    params.write_text(params.read_text().replace("window: 9", "window: 8"))
    repro(project)
    return f"files of next year: changes are seen all the same, {same_bytes(project, 'small')} files the same"


def busy_folder(folder: Path) -> str:
    """Commands from a folder that is no project."""
    (folder / "empty").mkdir()
    ends = []
    for words in (("repro",), ("publish",), ("show",), ("doctor",), ("plan",), ("use", "micro")):
        done = subprocess.run([sys.executable, "-m", "finetrace.cli", *words], cwd=folder / "empty", text=True,
                              env=environment(finished("small")), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        must(done.returncode and not tracebacks(done.stdout), f"{words}: {last_words(done.stdout)}")
        ends.append(words[0])
    must(not list((folder / "empty").iterdir()), f"left behind: {list((folder / 'empty').iterdir())}")
    return f"{', '.join(ends)}: a sentence each, nothing written"


ROWS = [
    Row("disk full", "Results and DVC's cache on a disk of 1, 2, 3 MiB, then 64",
        "Each refusal names path and need; with room the same command goes on", full),
    Row("file size limit", "RLIMIT_FSIZE of 256 KiB, then none", "A sentence; then the same command goes on", limited),
    Row("read-only", "The project on a read-only file system", "A sentence that says so", read_only),
    Row("few file handles", "64 open files at a time", "Done, or a sentence that says so", handles),
    Row("no HOME", "Without HOME, USER, LOGNAME, XDG folders", "As always",
        _plain("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")),
    Row("C locale", "LC_ALL=C, no UTF-8 mode of Python", "As always",
        _plain("LANG", "LC_CTYPE", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")),
    Row("odd path", "A project in a path with spaces, accents, Chinese, & and '", "As always", odd_path),
    Row("subfolder of another repository", "The project as a folder of somebody's git repository",
        "Done, nothing of theirs touched; or refused", subfolder),
    Row("no git", "No repository; then core.no_scm and no command git", "Told what to do; then done", no_git),
    Row("cache types", "DVC's cache.type hardlink, symlink, reflink: restore, change, delete, restore",
        "Same bytes, no object of the cache changed; reflink: refused where the file system has none", cache_types),
    Row("umask 077", "The study and its publication with umask 077", "Done, nothing readable by others", umask),
    Row("clock", "A clock that has gone back: files of next year", "Changes are seen, same bytes", clock),
    Row("no project", "Six commands in an empty folder", "A sentence each, nothing written", busy_folder),
]

if __name__ == "__main__":
    main("machine", ROWS)
