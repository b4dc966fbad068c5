"""`finetrace doctor --verify` finds every flipped byte, and says what to do."""

import hashlib
from pathlib import Path

import pytest
from tests.outputs import make_project

from finetrace.layout import Layout
from finetrace.store.checkpoints import mark
from finetrace.store.manifest import NAME, read_manifest
from finetrace.tracking import doctor as module
from finetrace.tracking.integrity import damaged, finished


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    return make_project(tmp_path / "project", seeds=(1,))[0]


def flip(path: Path, place: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)


def told(layout: Layout) -> list[str]:
    return [one.text for one in damaged(layout)]


def test_a_whole_project_has_no_damage(project: Layout) -> None:
    assert told(project) == []


def test_every_file_that_a_manifest_lists_is_looked_at(project: Layout) -> None:
    count = 0
    for folder in list(finished([project.root / "outputs", project.root / "data", project.root / "atlas"])):
        for name, facts in read_manifest(folder, verify=False).files.items():
            if facts["bytes"]:
                flip(folder / name)
                count += 1
                assert any(text.startswith(f"{folder / name}: its content") for text in told(project)), name
    assert count > 10
    assert len(told(project)) == count, "all are told, not the first alone"


def test_lost_files_broken_manifests_and_times_are_told(project: Layout) -> None:
    run = project.run("micro-a", "micro-sentiment", "ft", 1) / "trajectory"
    flip(run / "timing.parquet", 100)
    (run / "metrics.json").unlink()
    (project.task("micro-sentiment") / NAME).write_text("{")
    (gone, times, broken) = sorted(told(project), key=lambda text: "data" in text)
    assert gone == f"{run / 'metrics.json'}: is gone"
    assert times.startswith(f"{run / 'timing.parquet'}: not a readable Parquet table")
    assert broken.startswith(f"{project.task('micro-sentiment') / NAME}: not valid JSON")


def test_what_is_kept_and_unfinished_work_are_looked_at(project: Layout) -> None:
    kept = project.measured("geometry", "a")
    kept.mkdir(parents=True)
    (kept / NAME).write_text((project.task("micro-sentiment") / NAME).read_text())
    state = project.scratch("train", "k" * 24) / "checkpoint-6"
    state.mkdir(parents=True)
    (state / "optimizer.pt").write_bytes(b"123456")
    mark(state, 6, [])
    flip(state / "optimizer.pt")
    found = list(damaged(project))
    assert [one.serious for one in found] == [True, False]
    assert "is made again when it is needed" in found[0].fix
    assert found[1].text == f"{state / 'optimizer.pt'}: is damaged or incomplete, in unfinished work"


@pytest.mark.parametrize("place", ["", "elsewhere"])
def test_dvcs_cache_is_looked_at(project: Layout, tmp_path: Path, place: str) -> None:
    (project.home / ".dvc").mkdir()
    cache = project.home / ".dvc" / "cache"
    if place:
        cache = tmp_path / place
        (project.home / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n")
    files = []
    for content, end in ((b"abc", ""), (b"[]", ".dir")):
        digest = hashlib.md5(content).hexdigest()
        file = cache / "files" / "md5" / digest[:2] / (digest[2:] + end)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        files.append(file)
    assert told(project) == []
    for file in files:
        flip(file)
    assert sorted(told(project)) == sorted(f"{file}: is damaged, in DVC's cache" for file in files)


def test_the_doctor_verifies_only_when_asked(project: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKS", {})
    flip(project.task("micro-sentiment") / "train.parquet")
    lines: list[str] = []
    assert module.doctor(project, lines.append) == 0
    assert module.doctor(project, lines.append, verify=True) == 1
    assert "PROBLEM  every byte as it was written: " in lines[1]
    assert "fix: rm -r data/micro-sentiment && finetrace repro" in lines[1]
