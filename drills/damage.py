"""Files that are not what was written: a flipped byte or a lost end, in every kind of file that a stage reads."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.damage import flip, truncate
from tests.pipeline.toy import command

from drills.frame import Row, main, must
from drills.kills import _when_at_work
from drills.toy import begin, cloned, copied, family, finetrace, kill, last_words, repro, same_bytes, tracebacks
from finetrace.store.manifest import NAME, PROVENANCE, read_manifest
from finetrace.tracking.integrity import finished

FOLDERS = ("data", "models", "outputs", "atlas")
CONTROL = ("plan.yaml", "dvc.lock", "params.yaml", "dvc.yaml", "settings/train/toy_micro-sentiment_ft_s1.json",
           "settings/code/train.json", ".finetrace/times.json", ".dvc/config")


def _listed(project: Path) -> list[Path]:
    """All files that the manifests of finished folders list, those of no bytes left out."""
    folders = finished(project / name for name in FOLDERS)
    files = [folder / name for folder in folders for name in read_manifest(folder, verify=False).files]
    return [file for file in files if file.stat().st_size]


def _kinds(files: list[Path], project: Path) -> list[Path]:
    """One file of each kind: the last of those with the same name in folders of the same stage."""
    chosen = {}
    for file in files:
        parts = file.relative_to(project).parts
        chosen[parts[0], parts[-2], file.name] = file
    return list(chosen.values())


def _found(project: Path, files: list[Path]) -> str:
    """Every file is named by the doctor; returns what was counted."""
    _named(project, [(file,) for file in files])
    return f"the doctor names all {len(files)}"


def _named(project: Path, groups: Sequence[tuple[Path, ...]]) -> None:
    """Raise Failed unless the doctor names a file of each group."""
    said = finetrace(project, "doctor", "--verify", check=False).stdout
    unnamed = [files[0].relative_to(project).as_posix() for files in groups if not any(str(f) in said for f in files)]
    must(not unnamed, f"finetrace doctor --verify names {len(groups) - len(unnamed)} of {len(groups)}, and not "
         f"{unnamed[:3]}")


def _damaged(folder: Path, damage: Callable[[Path], None]) -> str:
    project = copied(folder)
    files = _listed(project)
    for file in files:
        _spoil(file, damage)
    found = _found(project, files)
    done = repro(project)
    return f"{found}; `finetrace repro` mends them ({last_words(done.stdout, 1)}): {same_bytes(project)} files the same"


def _spoil(file: Path, damage: Callable[[Path], None]) -> None:
    """Damage a file whose mode stays as it was: DVC hashes what it keeps read-only no more."""
    mode = file.stat().st_mode
    file.chmod(mode | 0o200)
    damage(file)
    file.chmod(mode)


def flipped(folder: Path) -> str:
    return _damaged(folder, flip)


def truncated(folder: Path) -> str:
    return _damaged(folder, truncate)


def manifests(folder: Path) -> str:
    """A folder with two damaged files is made again as a whole, so the doctor names one of them."""
    project = copied(folder)
    folders = list(finished(project / name for name in FOLDERS))
    for number, path in enumerate(folders):
        _spoil(path / NAME, flip)
        if number % 2:
            _spoil(path / PROVENANCE, flip)
    _named(project, [(path / NAME, path / PROVENANCE) for path in folders])
    repro(project)
    return (f"the doctor names one of the two in all {len(folders)} folders; `finetrace repro` mends them: "
            f"{same_bytes(project)} files the same")


def rotten(folder: Path) -> str:
    """The times stay as they were, so that DVC, which has looked at the files before, sees nothing."""
    project = copied(folder)
    command(project, "dvc", "status", "-q", check=False)
    files = _kinds(_listed(project), project)
    for file in files:
        times = file.stat()
        _spoil(file, flip)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    found = _found(project, files)
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("window: 8", "window: 9"))
    done = repro(project, check=False)
    must(done.returncode == 1 and "its content is not what its stage wrote" in done.stdout
         and not tracebacks(done.stdout), f"a lens of the damaged record: {last_words(done.stdout)}")
    published = finetrace(project, "publish", check=False)
    must(published.returncode == 1 and "is not what its stage wrote" in published.stdout
         and not tracebacks(published.stdout), f"publish: {last_words(published.stdout)}")
    params.write_text(params.read_text().replace("window: 9", "window: 8"))
    for name in FOLDERS:  # what the doctor says, for all of them
        shutil.rmtree(project / name)
    repro(project)
    return f"{found}; a lens and publish refuse them; the doctor's remedy: {same_bytes(project)} files the same"


def cache(folder: Path) -> str:
    project = copied(folder, "small")
    objects = [path for path in (project / ".dvc/cache/files/md5").glob("??/*") if path.stat().st_size]
    for path in objects:
        _spoil(path, flip)
    found = _found(project, [path for path in objects if path.suffix != ".dir"])
    for name in FOLDERS:
        shutil.rmtree(project / name)
    done = repro(project)
    return (f"{found} files; with the results gone, too, everything is made again ({last_words(done.stdout, 1)}): "
            f"{same_bytes(project, 'small')} files the same")


def control(folder: Path) -> str:
    project = copied(folder, "small")
    ends = []
    for name in CONTROL:
        file = project / name
        whole = file.read_bytes()
        file.write_bytes(whole[:len(whole) // 2])
        done = repro(project, check=False)
        must(not tracebacks(done.stdout), f"{name}: a trace of Python: {last_words(done.stdout)}")
        refused = done.returncode != 0
        must(not refused or file.name in done.stdout, f"{name}: refused, not named: {last_words(done.stdout)}")
        if refused:
            file.write_bytes(whole)
            repro(project)
        ends.append(f"{name} {'refused' if refused else 'made again'}")
        same_bytes(project, "small")
    return f"{', '.join(ends)}; each time the same bytes at the end"


def unfinished(folder: Path) -> str:
    project = cloned(folder, "small")
    scratch = project / ".finetrace" / "scratch"
    running = begin(project, "repro", "--jobs", "1")
    must(_when_at_work(running, ["train"]), "no training began")
    while running.poll() is None and not any(path.is_file() for path in scratch.glob("train/*/*")):
        time.sleep(0.02)
    time.sleep(0.3)
    kill(family(running.pid))
    running.wait()
    files = [path for path in scratch.rglob("*") if path.is_file() and path.stat().st_size]
    for file in files:
        flip(file)
    said = finetrace(project, "doctor", "--verify", check=False).stdout
    must(not tracebacks(said), f"doctor: {last_words(said)}")
    repro(project)
    return f"{len(files)} files of a killed training flipped; the same bytes in {same_bytes(project, 'small')} files"


ROWS = [
    Row("flipped byte", "Flip a bit in the middle of every file that a manifest lists",
        "`finetrace doctor --verify` names each; `finetrace repro` ends with the right bytes", flipped),
    Row("truncation", "Cut the end off every file that a manifest lists",
        "`finetrace doctor --verify` names each; `finetrace repro` ends with the right bytes", truncated),
    Row("manifests", "Flip a bit in every manifest.json and every second provenance.json",
        "The doctor names each folder by one of the two; `finetrace repro` ends with the right bytes", manifests),
    Row("flipped byte, old times", "The same in one file of each kind, with size and times as they were",
        "The doctor names each; who reads them refuses; its remedy restores them", rotten),
    Row("DVC's cache", "Flip a bit in every object of DVC's cache, and delete all results",
        "Nothing damaged is restored; everything is made again", cache),
    Row("control files", "Cut plan.yaml, dvc.lock, params.yaml, dvc.yaml, settings and memories in half, one by one",
        "Made again, or refused in a sentence that names the file", control),
    Row("unfinished work", "Kill a training, flip a bit in every file that it left",
        "The next run does not build on it", unfinished),
]

if __name__ == "__main__":
    main("damage", ROWS)
