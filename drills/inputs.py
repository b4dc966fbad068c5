"""Wrong input: drawn by hypothesis, drawn by the generators of tests/fuzz, and a corpus of cases found before."""

import contextlib
import copy
import importlib.util
import io
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from drills.frame import CannotRun, Row, main, must
from drills.toy import STUDY, cloned, last_words, tracebacks

CORPUS = Path(__file__).parent / "corpus"
EXAMPLES = int(os.environ.get("DRILLS_EXAMPLES", "1500"))
SECONDS = 5.0  # of a core for one study or one file of rows, at most


def _hypothesis() -> None:
    if importlib.util.find_spec("hypothesis") is None:
        raise CannotRun("hypothesis is not installed (make drills brings it)")


def studies(folder: Path) -> str:
    """params.yaml with a value, a key or an entry that is drawn, at a place that is drawn."""
    _hypothesis()
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    whole = yaml.safe_load(STUDY)
    places = _places(whole)
    scalars = (st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
               | st.sampled_from(["*", "all", "../up", "/", ".", "-1", "1e9", "nan", "ft", "toy", "~", "\x00", "é"]))
    values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3)
                          | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3), max_leaves=6)
    ends = {"accepted": 0, "refused": 0}

    def planned(study: Any) -> str:
        (folder / "params.yaml").write_bytes(yaml.safe_dump(study, allow_unicode=True).encode("utf-8", "replace"))
        return _planned(folder)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=False,
              suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.sampled_from(places), values), min_size=1, max_size=2))
    def check(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
        drawn = copy.deepcopy(whole)
        for place, value in changes:
            _put(drawn, place, value)
        ends[_in_time(lambda: planned(drawn))] += 1

    must(planned(whole) == "accepted", "the study without a change is refused: the drill is wrong")
    check()
    return f"{ends['accepted']:,} accepted, {ends['refused']:,} refused in a sentence; no other end"


def _in_time(what: Callable[[], str]) -> str:
    """What it returns, unless it takes more CPU seconds than it may. Wall time says little on a busy machine."""
    began = time.process_time()
    end = what()
    seconds = time.process_time() - began
    assert seconds < SECONDS, f"took {seconds:.1f} s of a core"
    return end


def _places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all values of a study."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way for key, one in inner for way in ((*above, key), *_places(one, (*above, key)))]


def _put(study: Any, place: tuple[Any, ...], value: Any) -> None:
    """Set one value, unless an earlier change took its place away."""
    for key in place[:-1]:
        if not _has(study, key):
            return
        study = study[key]
    if _has(study, place[-1]):
        study[place[-1]] = value


def _has(value: Any, key: Any) -> bool:
    if isinstance(value, list):
        return isinstance(key, int) and key < len(value)
    return isinstance(value, dict) and key in value


def _planned(folder: Path) -> str:
    """What `finetrace plan --list` does with params.yaml: "accepted" or "refused". In this process, for speed; anything
    but these two raises."""
    from finetrace.errors import FinetraceError
    from finetrace.study import load_study
    from finetrace.study.plan import names_of

    try:
        names_of(load_study(folder / "params.yaml"))
    except FinetraceError as error:
        text = str(error)
        assert text.strip() and len(text) < 20_000, f"no sentence: {text[:200]}"
        assert not any(word in text for word in ("Traceback", "Errno", "<class", "pydantic")), text
        return "refused"
    return "accepted"


def rows(folder: Path) -> str:
    """Files of rows with bytes that are drawn."""
    _hypothesis()
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    from finetrace.config.base import parse
    from finetrace.config.data import FilesTaskSettings
    from finetrace.data.build import build_task
    from finetrace.data.registry import resolve
    from finetrace.errors import FinetraceError

    asked = {"path": "rows", "text": ["text"], "label": "label"}
    task = resolve("own", parse(FilesTaskSettings, asked, "task_files.own"))
    good = {"csv": b"text,label\n" + b"a,0\nb,1\n" * 6, "jsonl": b'{"text": "a", "label": "0"}\n{"text": "b", "label": '
            b'"1"}\n' * 6, "tsv": b"text\tlabel\n" + b"a\t0\nb\t1\n" * 6}
    ends = {"accepted": 0, "refused": 0}
    pieces = st.binary(max_size=6) | st.sampled_from([b'"', b"\n", b",", b"\r", b"\t", b"{", b"}", b"\\u0000", b"\x00",
                                                      b"\xef\xbb\xbf", b"\xff\xfe", b"null", b"NaN", b"1e400"])

    def built(form: str, train: bytes, dev: bytes) -> str:
        (folder / "rows").mkdir(exist_ok=True)
        for old in (folder / "rows").iterdir():
            old.unlink()
        for split, content in (("train", train), ("dev", dev)):
            (folder / "rows" / f"{split}.{form}").write_bytes(content)
        try:
            build_task("own", task, folder / "out", root=folder, seed=0, section="task_files")
        except FinetraceError as error:
            assert not any(word in str(error) for word in ("Traceback", "Errno", "<class", "pydantic")), error
            return "refused"
        return "accepted"

    @settings(max_examples=EXAMPLES // 3, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(sorted(good)), st.integers(0, 200), st.integers(0, 4), pieces, st.booleans())
    def check(form: str, at: int, removed: int, piece: bytes, in_train: bool) -> None:
        content = good[form]
        spoiled = content[:at] + piece + content[at + removed:]
        pair = (spoiled, content) if in_train else (content, spoiled)
        ends[_in_time(lambda: built(form, *pair))] += 1

    must(all(built(form, content, content) == "accepted" for form, content in good.items()),
         "rows without a fault are refused: the drill is wrong")
    check()
    must(min(ends.values()) > EXAMPLES // 100, f"{ends}: the drill draws too much of one kind")
    return f"{ends['accepted']:,} accepted, {ends['refused']:,} refused in a sentence; no other end"


def drawn(folder: Path) -> str:
    done = subprocess.run([sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-m",
                           "slow or not slow", "-k", "few or 0", f"--basetemp={folder / 'fuzz'}", "tests/fuzz"],
                          cwd=CORPUS.parents[1], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    must(done.returncode == 0, last_words(done.stdout))
    return last_words(done.stdout, 1)


def corpus(folder: Path) -> str:
    """Every case is a params.yaml; its name begins with `accepted-` or `refused-`, its first line says the words that
    the refusal has to hold."""
    project = cloned(folder, "small")
    cases = sorted(CORPUS.glob("*.yaml"))
    for case in cases:
        content = case.read_bytes()
        (project / "params.yaml").write_bytes(content)
        code, said = _listed(project)
        words = content.splitlines()[0].decode("utf-8", "replace").removeprefix("# ").strip()
        refused = case.name.startswith("refused")
        must(not tracebacks(said), f"{case.name}: a trace of Python: {last_words(said)}")
        must(bool(code) == refused, f"{case.name}: exit code {code}: {last_words(said)}")
        must(not refused or words in said, f"{case.name}: {words!r} is not said: {last_words(said)}")
    return f"{len(cases)} cases, each with its own end"


def _listed(project: Path) -> tuple[int, str]:
    """Exit code and output of `finetrace plan --list`, by the command's own main, which starts once for all."""
    from finetrace.cli import main as command

    said = io.StringIO()
    with contextlib.chdir(project), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = command(["plan", "--list"])
        except Exception:  # what the command would show its user
            traceback.print_exc(file=said)
            code = 1
    return code, said.getvalue()


ROWS = [
    Row("studies by hypothesis", f"{EXAMPLES:,} studies with values drawn at places drawn",
        "Accepted, or refused in a sentence", studies),
    Row("rows by hypothesis", f"{EXAMPLES // 3:,} csv, tsv and jsonl files with bytes drawn, taken away, put in",
        "Read, or refused in a sentence", rows),
    Row("drawn studies and tasks", "A quarter of the studies and task files of tests/fuzz",
        "What is refused is refused in words, what is accepted is what was meant", drawn),
    Row("corpus", "The cases of drills/corpus, by `finetrace plan --list`", "Each as its name says", corpus),
]

if __name__ == "__main__":
    main("inputs", ROWS)
