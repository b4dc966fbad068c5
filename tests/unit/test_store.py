"""Files are whole or absent, and equal content is equal bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from finetrace.errors import FinetraceError
from finetrace.store import files, tables
from finetrace.store.arrays import read_array, write_array
from finetrace.store.files import (
    atomic_file,
    atomic_folder,
    sha256_file,
    sha256_folder,
    sha256_value,
    write_json,
    write_text,
    write_yaml,
)
from finetrace.store.tables import SegmentedTable, fixed_lists, matrix, merge_tables, read_table, write_table


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# --- atomic files and folders


def test_atomic_file_appears_only_at_the_end(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent and not path.exists()
    assert path.read_text() == "whole"
    assert names(tmp_path) == ["deep", "deep/a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_exception_in_an_atomic_file_leaves_the_old_one(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_file(path) as temporary:
        temporary.write_text("ha")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_exception_in_an_atomic_folder_leaves_the_old_one(tmp_path, error):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").write_text("old")
    with pytest.raises(error), atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
        raise error
    assert names(tmp_path) == ["out", "out/old"]


def test_atomic_folder_replaces_the_whole_folder(tmp_path):
    path = tmp_path / "out"
    (path / "sub").mkdir(parents=True)
    (path / "sub" / "old").write_text("old")
    with atomic_folder(path) as temporary:
        assert names(temporary) == []
        (temporary / "new").write_text("new")
        assert (path / "sub" / "old").exists()
    assert names(tmp_path) == ["out", "out/new"]


def test_failing_replacement_keeps_a_whole_folder(tmp_path, monkeypatch):
    """Whatever step of the replacement fails, the final name shows the old or the new folder, never a part."""
    path = tmp_path / "out"
    with atomic_folder(path) as temporary:
        (temporary / "old").write_text("old")

    def fail(*_args, **_more):
        raise OSError("disk on fire")

    monkeypatch.setattr(files.shutil, "rmtree", fail)
    with pytest.raises(OSError, match="fire"), atomic_folder(path) as temporary:
        (temporary / "new").write_text("new")
    assert names(path) == ["new"]
    monkeypatch.undo()
    with atomic_folder(path) as temporary:
        (temporary / "newest").write_text("newest")
    assert names(tmp_path) == ["out", "out/newest"]


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    dead, here = dead_process(), os.getpid()
    for process in (dead, here):
        (tmp_path / f".tmp-{process}-out").mkdir()
        (tmp_path / f".tmp-{process}-out" / "half").write_text("half")
        (tmp_path / f".tmp-{process}-a.txt").write_text("half")
    (tmp_path / f".tmp-{dead}-out.old").mkdir()
    with atomic_folder(tmp_path / "out") as temporary:
        assert names(temporary) == []
    write_text(tmp_path / "a.txt", "whole")
    assert names(tmp_path) == ["a.txt", "out"]


def test_a_writer_leaves_its_neighbours_alone(tmp_path):
    """Stages run side by side: `data/sst2` must not take the unfinished `data/my-sst2` or a living writer's work."""
    alive = os.getppid()
    neighbours = [f".tmp-{dead_process()}-my-sst2", f".tmp-{alive}-sst2", f".tmp-{alive}-my-sst2", ".tmp-x-sst2"]
    for neighbour in neighbours:
        (tmp_path / neighbour).mkdir()
    with atomic_folder(tmp_path / "sst2"):
        pass
    write_text(tmp_path / "2", "text")
    assert names(tmp_path) == sorted([*neighbours, "2", "sst2"])


WRITERS = {
    "table": """
import pyarrow as pa
from finetrace.store.tables import merge_tables
def endless():
    while True:
        yield pa.table({"x": range(70_000)})
        print("writing", flush=True)
merge_tables(folder / "table.parquet", endless())
""",
    "folder": """
from finetrace.store.files import atomic_folder
from finetrace.store.manifest import Manifest, complete
with atomic_folder(folder / "out") as out:
    (out / "a.bin").write_bytes(b"0" * 100_000)
    print("writing", flush=True)
    while True:
        (out / "b.bin").write_bytes(b"0" * 1_000_000)
""",
    "file": """
from finetrace.store.files import atomic_file
with atomic_file(folder / "a.bin") as path, open(path, "wb") as stream:
    while True:
        stream.write(b"0" * 100_000)
        stream.flush()
        print("writing", flush=True)
        stream.seek(0)
""",
}


@pytest.mark.parametrize("what", sorted(WRITERS))
def test_sigkill_in_the_middle_leaves_nothing_under_a_final_name(tmp_path, what):
    code = f"import sys\nfrom pathlib import Path\nfolder = Path({str(tmp_path)!r})\n{WRITERS[what]}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    left = [p.name for p in tmp_path.iterdir()]
    assert left and all(name.startswith(f".tmp-{process.pid}-") for name in left)
    # the next writer succeeds and clears up
    target = {"table": "table.parquet", "folder": "out", "file": "a.bin"}[what]
    if what == "folder":
        with atomic_folder(tmp_path / target):
            pass
    else:
        write_table(tmp_path / target, {"x": [1]})
    assert [p.name for p in tmp_path.iterdir()] == [target]


# --- JSON, YAML and hashes


def test_json_is_sorted_finite_and_unicode(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": float("nan"), "a": [np.float32(0.5), np.int64(3), float("-inf")], "ç": (1, None)})
    assert path.read_text("utf-8") == (
        '{\n  "a": [\n    0.5,\n    3,\n    null\n  ],\n  "b": null,\n  "ç": [\n    1,\n    null\n  ]\n}\n'
    )
    write_json(tmp_path / "b.json", {"ç": [1, None], "a": [0.5, 3, None], "b": None})
    assert (tmp_path / "b.json").read_bytes() == path.read_bytes()


def test_unwritable_value_leaves_no_json(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert names(tmp_path) == []


def test_yaml_keeps_the_order_and_unicode(tmp_path):
    write_yaml(tmp_path / "a.yaml", {"z": 5e-5, "a": "é"})
    assert (tmp_path / "a.yaml").read_text("utf-8") == "z: 5.0e-05\na: é\n"


def test_folder_hash_is_about_names_and_contents_only(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    for folder, order in ((first, "ab"), (second, "ba")):
        (folder / "sub").mkdir(parents=True)
        for name in order:
            (folder / "sub" / name).write_text(name)
    os.utime(second / "sub" / "a", (1, 1))
    (second / "sub" / "__pycache__").mkdir()
    (second / "sub" / "__pycache__" / "x.pyc").write_text("x")
    assert sha256_folder(first) == sha256_folder(second)
    assert sha256_folder(first, skip=("sub/a",)) != sha256_folder(first)
    (second / "sub" / "a").rename(second / "a")
    assert sha256_folder(first) != sha256_folder(second)
    (second / "a").rename(second / "sub" / "a")
    (second / "sub" / "a").write_text("A")
    assert sha256_folder(first) != sha256_folder(second)


def test_value_hash_ignores_key_order():
    assert sha256_value({"a": 1, "b": [1, 2]}) == sha256_value({"b": [1, 2], "a": 1})
    assert sha256_value({"a": [2, 1]}) != sha256_value({"a": [1, 2]})


# --- tables


def signals(first: int, last: int) -> pa.Table:
    """Rows of the steps first..last-1, three per step, with a null, text and logits."""
    steps = np.repeat(np.arange(first, last), 3)
    noise = np.sin(np.arange(first * 3, last * 3, dtype=np.float32))
    return pa.table(
        {
            "step": pa.array(steps),
            "text": pa.array([None if s % 7 == 0 else f"é{s % 5}" for s in steps], pa.string()),
            "loss": pa.array(noise, pa.float32()),
            "logits": fixed_lists(np.stack([noise, -noise], 1)),
        }
    )


@pytest.mark.parametrize("row_group", [tables.ROW_GROUP, 50, 7])
def test_merged_bytes_do_not_depend_on_the_segments(tmp_path, monkeypatch, row_group):
    monkeypatch.setattr(tables, "ROW_GROUP", row_group)
    written = {}
    for name, flushes in {"never": [], "often": range(60), "odd": [0, 1, 17, 40]}.items():
        table = SegmentedTable(tmp_path / name, "signals")
        for step in range(60):
            table.append(step, signals(step, step + 1))
            if step in flushes:
                table.flush()
        assert table.merge(tmp_path / f"{name}.parquet") == 180
        written[name] = sha256_file(tmp_path / f"{name}.parquet")
    assert len(set(written.values())) == 1, written
    assert read_table(tmp_path / "odd.parquet").equals(signals(0, 60))


def test_written_bytes_do_not_depend_on_the_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP", 50)
    pieces = pa.concat_tables([signals(s, s + 1) for s in range(60)])
    assert pieces["loss"].num_chunks == 60
    write_table(tmp_path / "a.parquet", pieces)
    write_table(tmp_path / "b.parquet", pieces.combine_chunks())
    write_table(tmp_path / "c.parquet", pa.concat_tables([signals(0, 20), signals(20, 60)]))
    assert len({(tmp_path / f"{name}.parquet").read_bytes() for name in "abc"}) == 1


def test_truncate_drops_what_a_crash_must_repeat(tmp_path):
    table = SegmentedTable(tmp_path, "signals")
    for step in range(10):
        table.append(step, signals(step, step + 1))
        if step in (3, 6):
            table.flush()
    table.truncate(6)  # the crash: steps 7-9 were in memory, the state to resume from is step 6
    assert [p.name for p in table.segments()] == ["signals-0000000000-0000000003.parquet",
                                                  "signals-0000000004-0000000006.parquet"]
    again = SegmentedTable(tmp_path, "signals")
    again.truncate(5)  # a segment that goes past step 5 is dropped whole
    assert [p.name for p in again.segments()] == ["signals-0000000000-0000000003.parquet"]
    for step in range(5, 7):
        again.append(step, signals(step, step + 1))
    with pytest.raises(ValueError, match="step 4 after step 6"):
        again.append(4, signals(4, 5))
    assert again.merge(tmp_path / "out.parquet") == 3 * 6
    assert sorted(set(read_table(tmp_path / "out.parquet")["step"].to_pylist())) == [0, 1, 2, 3, 5, 6]
    again.truncate(-1)
    assert again.segments() == []


def test_segments_ignore_the_half_of_a_killed_writer(tmp_path):
    table = SegmentedTable(tmp_path, "signals")
    (tmp_path / ".tmp-99-signals-0000000000-0000000009.parquet").write_bytes(b"PAR1 half")
    table.append(0, signals(0, 1))
    table.flush()
    table.flush()
    assert [p.name for p in table.segments()] == ["signals-0000000000-0000000000.parquet"]
    assert table.merge(tmp_path / "out.parquet") == 3


def test_failing_merge_leaves_nothing(tmp_path):
    def rows():
        yield signals(0, 3)
        raise ValueError("the second segment is damaged")

    with pytest.raises(ValueError, match="damaged"):
        merge_tables(tmp_path / "out.parquet", rows())
    with pytest.raises(ValueError, match=r"out\.parquet: no rows"):
        merge_tables(tmp_path / "out.parquet", [])
    with pytest.raises(pa.ArrowInvalid):
        write_table(tmp_path / "out.parquet", {"a": [1, 2], "b": [1]})
    assert names(tmp_path) == []


def test_logits_survive_as_float32(tmp_path):
    values = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
    write_table(tmp_path / "a.parquet", pa.table({"logits": fixed_lists(values)}))
    back = matrix(read_table(tmp_path / "a.parquet"), "logits")
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, values)
    np.testing.assert_array_equal(matrix(read_table(tmp_path / "a.parquet").slice(4, 5), "logits"), values[4:9])


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_damaged_table_is_named(tmp_path, keep):
    path = tmp_path / "a.parquet"
    write_table(path, signals(0, 50))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FinetraceError, match=r"a\.parquet: not a readable Parquet table .* run its stage again"):
        read_table(path)


def test_missing_table_is_named(tmp_path):
    with pytest.raises(FinetraceError, match=r"a\.parquet: no such table; run the stage"):
        read_table(tmp_path / "a.parquet")


# --- arrays


def test_arrays_are_memory_mapped_and_read_only(tmp_path):
    values = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    write_array(tmp_path / "a.npy", values)
    back = read_array(tmp_path / "a.npy")
    assert isinstance(back, np.memmap) and back.dtype == np.float16
    np.testing.assert_array_equal(back, values)
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 1
    write_array(tmp_path / "b.npy", np.asfortranarray(values)[:, ::-1][:, ::-1].copy())
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_pickled_arrays_are_refused_both_ways(tmp_path):
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        write_array(tmp_path / "a.npy", np.array([{}, []], dtype=object))
    assert names(tmp_path) == []
    np.save(tmp_path / "b.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(FinetraceError, match=r"b\.npy: not a readable array"):
        read_array(tmp_path / "b.npy")


@pytest.mark.parametrize("keep", [0, 3, 50, 130, -1])
def test_truncated_array_is_named(tmp_path, keep):
    path = tmp_path / "a.npy"
    write_array(path, np.arange(100.0))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FinetraceError, match=r"a\.npy: not a readable array .* run its stage again"):
        read_array(path)


def test_missing_array_and_archive_are_named(tmp_path):
    with pytest.raises(FinetraceError, match=r"a\.npy: no such array"):
        read_array(tmp_path / "a.npy")
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(FinetraceError, match=r"a\.npy: not a readable array"):
        read_array(tmp_path / "a.npy")


def test_fsync_comes_before_the_rename(tmp_path, monkeypatch):
    """Otherwise a power cut can leave an empty file under the final name."""
    events = []
    real_fsync, real_replace = files.fsync, os.replace
    monkeypatch.setattr(files, "fsync", lambda path: (events.append(("fsync", Path(path).name)), real_fsync(path)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(("replace", Path(b).name)), real_replace(a, b)))
    write_text(tmp_path / "a.txt", "x")
    assert events == [("fsync", f".tmp-{os.getpid()}-a.txt"), ("replace", "a.txt"), ("fsync", tmp_path.name)]
    events.clear()
    with atomic_folder(tmp_path / "out") as out:
        (out / "b.txt").write_text("x")
    assert events.index(("fsync", "b.txt")) < events.index(("replace", "out"))


def test_time_is_not_in_the_bytes(tmp_path):
    write_table(tmp_path / "a.parquet", signals(0, 5))
    time.sleep(0.01)
    write_table(tmp_path / "b.parquet", signals(0, 5))
    assert sha256_file(tmp_path / "a.parquet") == sha256_file(tmp_path / "b.parquet")


def test_rows_of_a_step_that_was_flushed_before_follow_the_earlier_ones(tmp_path):
    table = SegmentedTable(tmp_path, "history")
    for text in ("trained", "evaluated", "kept"):
        table.append(512, pa.table({"what": [text]}))
        table.flush()
    assert table.merge(tmp_path / "whole.parquet") == 3
    assert read_table(tmp_path / "whole.parquet")["what"].to_pylist() == ["trained", "evaluated", "kept"]
