"""Two thousand drawn studies and task files: what is refused is refused in words, what is accepted is what was meant.

The generators are our own, on `random.Random(seed)`: a failure names its seed, and `FUZZ_SEED=n pytest -m slow
tests/fuzz` draws that one alone.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import extract_tb
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.fuzz.cases import TaskCase, draw_study, draw_task

from finetrace.config.base import parse
from finetrace.config.data import FilesTaskSettings
from finetrace.data.build import build_task
from finetrace.data.registry import resolve
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.pipeline.compile import plan_text
from finetrace.study import load_study
from finetrace.study.plan import last_settings, plan_of
from finetrace.study.use import use

COUNT = 1_000  # of each
SECONDS = 300  # for one case, at most; machines can be busy


@contextmanager
def in_time(what: str) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TimeoutError(f"{what} hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def numbers(first: int, count: int) -> range:
    """The seeds to draw; FUZZ_SEED chooses one."""
    only = os.environ.get("FUZZ_SEED")
    return range(int(only), int(only) + 1) if only else range(first, first + count)


def each(first: int, count: int, check: Callable[[int], str]) -> Counter[str]:
    """Check every seed; all failures together, by their seed."""
    ends: Counter[str] = Counter()
    failures = []
    for seed in numbers(first, count):
        try:
            with in_time(f"seed {seed}"):
                ends[check(seed)] += 1
        except Exception as error:  # whatever a case does to the code is told with its seed
            places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in extract_tb(error.__traceback__)[-3:]]
            failures.append(f"seed {seed}: {type(error).__name__}: {error} ({' > '.join(places)})")
    assert not failures, f"{len(failures)} of {count}:\n" + "\n".join(failures[:20])
    return ends


def speaks(error: FinetraceError) -> None:
    """A message is short, one line per problem, and has no trace of Python's own."""
    lines = str(error).splitlines()
    assert lines and all(line.strip() and len(line) < 1500 for line in lines), f"no sentence: {error}"
    assert not any(word in str(error) for word in ("Traceback", "Errno", "<class", "pydantic")), error


def check_task(seed: int, root: Path) -> str:
    case = draw_task(seed, root)
    out = root / "out"
    try:
        settings = resolve("own", parse(FilesTaskSettings, case.settings, "params.yaml: task_files.own"))
        facts = build_task("own", settings, out, root=root, seed=0, section="task_files")
    except FinetraceError as error:
        assert not out.exists() or not list(out.iterdir()), "half written"
        assert case.spoiled or case.notes, f"refused, though nothing is wrong: {error} {case.settings}"
        speaks(error)
        return "refused"
    if case.notes:
        return "damaged and read"
    assert not case.spoiled, f"accepted, in spite of {case.spoiled}"
    is_what_was_meant(case, facts, out)
    return "accepted"


def is_what_was_meant(case: TaskCase, facts: dict[str, Any], out: Path) -> None:
    assert facts["label_names"] == list(case.names)
    for split, meant in case.meant.items():
        table = pq.read_table(out / f"{split}.parquet")
        names = [facts["label_names"][number] for number in table["label"].to_pylist()]
        assert list(zip(table["text_a"].to_pylist(), names, strict=True)) == meant, split
    assert {path.stem for path in out.glob("*.parquet")} == set(case.meant)


def check_study(seed: int, root: Path) -> str:
    content, values = draw_study(seed)
    layout = Layout(root, root)
    (root / "studies").mkdir()
    (root / "studies" / "drawn.yaml").write_bytes(content)
    layout.params.write_bytes(content)
    try:
        study = load_study(layout.params)
        items = plan_of(study)
    except FinetraceError as error:
        speaks(error)
        with pytest.raises(FinetraceError):
            use(layout, "drawn")
        assert not (root / ".finetrace").exists() and layout.params.read_bytes() == content
        return "refused"
    asked = [[item.stage, item.key, item.paths, item.asked] for item in items]
    assert json.dumps([*asked, last_settings(study)], allow_nan=False)
    assert plan_text(study).startswith("# Made from params.yaml")
    assert len({(item.stage, item.key) for item in items}) == len(items)
    if values is not None:  # a value that is asked for is the value that is used
        train = values.get("train") or {}
        for key, value in (train.items() if isinstance(train, dict) else ()):
            used = getattr(study.train, key)
            assert used == value or str(used) == str(value) or value is None or isinstance(used, tuple
                                                                                           | bool), (key, value, used)
    use(layout, "drawn")
    return "accepted"


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_task_files(part: int, tmp_path_factory: pytest.TempPathFactory):
    ends = each(part * COUNT // 4, COUNT // 4, lambda seed: check_task(seed, tmp_path_factory.mktemp(f"t{seed}-")))
    assert "FUZZ_SEED" in os.environ or min(ends["accepted"], ends["refused"]) > COUNT // 20, ends


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_studies(part: int, tmp_path_factory: pytest.TempPathFactory):
    ends = each(10_000 + part * COUNT // 4, COUNT // 4,
                lambda seed: check_study(seed, tmp_path_factory.mktemp(f"s{seed}-")))
    assert "FUZZ_SEED" in os.environ or min(ends["accepted"], ends["refused"]) > COUNT // 20, ends


def test_a_few_of_each(tmp_path_factory: pytest.TempPathFactory):
    each(0, 30, lambda seed: check_task(seed, tmp_path_factory.mktemp(f"t{seed}-")))
    each(10_000, 10, lambda seed: check_study(seed, tmp_path_factory.mktemp(f"s{seed}-")))
