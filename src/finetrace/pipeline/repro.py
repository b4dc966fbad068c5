"""Run a study: bring every stage up to date, independent items side by side.

`finetrace repro` compiles params.yaml (plan.yaml, settings/), asks DVC what is out of date, hands the stages' own
commands to an executor in the order of DVC's graph, and records finished items in dvc.lock from this one place, so
that no process waits for a lock. An item that fails leaves the others running; what builds on it is left out, and
the end says what failed and why. Killed at any moment, the same command goes on: an item that had ended but was not
yet recorded finds its folder whole, with the key it asks for. Plain `dvc repro` gives the same results, one item
after the other.
"""

import heapq
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.pipeline.compile import compile_study, require_project
from finetrace.pipeline.executor import Executor, Finished, LocalExecutor
from finetrace.pipeline.graph import FIRST, Graph, builds_on, opened
from finetrace.pipeline.needs import Estimate, is_micro, read_machines
from finetrace.pipeline.other_bits import leave_alone
from finetrace.pipeline.ray_engine import RayExecutor
from finetrace.pipeline.times import Times
from finetrace.pipeline.unchanged import is_unchanged, remember, signature
from finetrace.store import threads
from finetrace.store.files import file_lock
from finetrace.study import Study
from finetrace.study.plan import names_of
from finetrace.study.use import chosen_file, follow

UP_TO_DATE = "Data and pipelines are up to date."
GRACE = 60.0
"""Seconds that an interrupted item has to end at a whole state."""
RECORD_EVERY = 60.0
"""Seconds after which finished items are recorded while others run: what a kill -9 can leave to be found again."""


@dataclass
class Progress:
    """The state of a study's items, by stage name."""

    waiting: set[str]
    running: dict[str, float] = field(default_factory=dict)
    """Item -> when it began, Unix time."""
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Item -> the last lines that it printed."""
    blocked: set[str] = field(default_factory=set)
    """Items that build on one that failed."""


def default_jobs(study: Study) -> int:
    """One process per core when every model is a micro-BERT (they train on one thread), else one; where several
    processes do one training, that many fewer."""
    return max(1, cores() // study.compute.processes) if is_micro(study) else 1


def engine(name: str, layout: Layout) -> Executor:
    """What runs the items: `local`, this machine; `ray` or `ray:ADDRESS`, a cluster that shares the project folder."""
    kind, _, address = name.partition(":")
    if kind == "ray":
        return RayExecutor(layout.root, address or "auto", grace=GRACE)
    if name != "local":
        raise FinetraceError(f"--engine {name}: is not known; take local, ray, or ray:ADDRESS as in ray:10.0.0.5:6379")
    return LocalExecutor(layout.root, show=_show, grace=GRACE)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def repro(layout: Layout, jobs: int = 0, say: Callable[[str], None] = print, executor: Executor | None = None) -> int:
    """Bring the study up to date; exit code 0, or 1 when items failed.

    jobs: items at a time, 0 for as many as the executor has room for, on this machine `default_jobs`;  executor: runs
    commands, by default on this machine, and is closed at the end. Raises FinetraceError for a study that is not
    valid, or a project that DVC cannot read.
    """
    if jobs < 0:
        raise FinetraceError(f"--jobs {jobs}: take 1 or more")
    require_project(layout)
    with file_lock(
        layout.home / ".finetrace" / "repro.lock", waiting="another `finetrace repro` is at work here; waiting for it"
    ):
        if is_unchanged(layout):
            say(UP_TO_DATE)
            return 0
        executor = executor or engine("local", layout)
        try:
            executor.prepare()  # something is to be done, in all likelihood: torch is imported while DVC looks for it
            follow(layout)
            study, _ = compile_study(layout)
            estimate = Estimate(read_machines(layout), micro=is_micro(study))
            with opened(layout.root) as graph:
                require_stages(graph.stages.keys(), study)
                driver = Driver(layout, graph, jobs or executor.room() or default_jobs(study), say, estimate)
                code = driver.run(executor)
                if code == 0:
                    driver.remember()
                remote = graph.has_remote()
        finally:
            executor.close()
        if note := leave_alone(layout, remote):
            say(note)
        return code


def require_stages(names: Collection[str], study: Study) -> None:
    """Raise FinetraceError when dvc.yaml, which has these stages, lacks one of the study's: what stood there would be
    left out without a word."""
    if missing := {name.partition("@")[0] for name in names_of(study) if name not in names}:
        raise FinetraceError(f"dvc.yaml: has no stage {', '.join(sorted(missing))}, which the study asks for; git "
                             "checkout dvc.yaml, or add them")


class Driver:
    """One run of a study: what is due, what runs, what has ended. say: told every line of progress;
    estimate: what items need of a machine."""

    def __init__(self, layout: Layout, graph: Graph, jobs: int, say: Callable[[str], None], estimate: Estimate):
        self.layout, self.graph, self.jobs, self.say, self.estimate = layout, graph, jobs, say, estimate
        self.times = Times(layout.home / ".finetrace" / "times.json")
        self.unrecorded: list[str] = []
        self.inputs: dict[str, Mapping[str, Any]] = {}
        self.recorded_at = time.monotonic()
        self.changed: set[str] = set()
        """Items of which something is out of date, and those whose outputs are new."""

    def run(self, executor: Executor) -> int:
        graph = self.graph
        first = [name for name in FIRST if name in graph.stages and graph.changes(name)]
        graph.record(first)  # this process has just done their work
        stale = {name for name in graph.stages if name not in FIRST and graph.changes(name)}
        if not stale:
            graph.tidy_lock()
            self.say(UP_TO_DATE)
            return 0
        self.changed = stale
        due = builds_on(graph.after, stale)
        self.state = Progress(waiting=due)
        self._line_up(due)
        items = len(graph.stages.keys() - set(FIRST))
        self.say(
            f"{len(stale)} of {items} items are out of date, {len(due) - len(stale)} more build on them; "
            f"{self.times.text(self._to_go())} on {self.jobs} process{'es' if self.jobs > 1 else ''}"
        )
        try:
            self._work(executor)
        finally:
            self._record()
            self.times.write()
            graph.tidy_lock()
        return self._report()

    def remember(self) -> None:
        """Look at everything once more, as it lies now, and remember it if it is up to date: the next run is over at
        once then."""
        paths = self.graph.paths()
        if study := chosen_file(self.layout):
            paths.add(str(study))  # it may lie outside studies/
        seen = signature(self.layout, paths)
        compile_study(self.layout)
        if not any(self.graph.changes(name) for name in self.graph.stages):
            remember(self.layout, paths, seen)

    def _work(self, executor: Executor) -> None:
        """Submit and collect until nothing is left that may run."""
        while True:
            self._fill(executor)
            if not self.state.running:
                return
            ended = executor.next(timeout=RECORD_EVERY)
            while ended is not None:
                self._end(ended)
                self._fill(executor)  # keep the machine busy while finished items are recorded
                self.say(self._line(ended.name))
                ended = executor.next(timeout=0)
            if time.monotonic() - self.recorded_at > RECORD_EVERY:
                self._record()

    def _fill(self, executor: Executor) -> None:
        """Submit items until `jobs` run: of those whose inputs are there, the one first on which the longest work
        builds."""
        while len(self.state.running) < self.jobs and self.ready:
            _, name = heapq.heappop(self.ready)
            self.state.waiting.discard(name)
            if self.graph.after[name] & (self.state.failed.keys() | self.state.blocked):
                self.state.blocked.add(name)
                self._left(name)
            elif self._is_current(name):
                self._left(name)
            else:
                self._begin(name, executor)

    def _left(self, name: str) -> None:
        """An item waits and runs no longer: those that waited for nothing else are ready."""
        for reader in self.before[name]:
            self.missing[reader] -= 1
            if not self.missing[reader]:
                heapq.heappush(self.ready, (-self.ranks[reader], reader))

    def _is_current(self, name: str) -> bool:
        """Whether nothing is left to do: its inputs came out as they were, or an earlier run with the same inputs is
        in DVC's cache."""
        if name not in self.changed and not self.graph.changes(name):
            return True
        try:
            self.inputs[name] = self.graph.inputs(name)
        except FinetraceError as error:
            self.state.failed[name] = str(error)
            return True
        if self.graph.restore(name):
            self.say(f"restored  {name}")
            self._done(name)
            return True
        return False

    def _begin(self, name: str, executor: Executor) -> None:
        environment = {"DVC_STAGE": name, "DVC_ROOT": str(self.layout.home), "FINETRACE_LINES": "1",
                       threads.NAME: str(max(1, cores() // self.jobs))}
        needs = self.estimate.of(name, self.graph.folders(name))
        try:
            executor.submit(name, self.graph.command(name), environment, needs)
        except FinetraceError as error:  # no machine of a cluster is large enough
            self.state.failed[name] = str(error)
            self._left(name)
        else:
            self.state.running[name] = time.time()

    def _end(self, ended: Finished) -> None:
        del self.state.running[ended.name]
        missing = self.graph.absent(ended.name) if ended.code == 0 else []
        if ended.code == 0 and not missing:
            self.times.add(ended.name, ended.seconds)
            self.estimate.learn(ended.name, self.graph.folders(ended.name))
            self._done(ended.name)
        else:
            self.state.failed[ended.name] = f"did not write {', '.join(missing)}" if missing else _last_words(ended)
        self._left(ended.name)

    def _done(self, name: str) -> None:
        self.state.done.append(name)
        self.unrecorded.append(name)

    def _record(self) -> None:
        """Record finished items, but for those whose inputs were edited while they ran: the next run makes these
        again."""
        self.recorded_at = time.monotonic()
        kept = [name for name in self.unrecorded if self.graph.inputs(name) == self.inputs[name]]
        for name in set(self.unrecorded) - set(kept):
            self.say(f"{name}: its inputs changed while it ran; the next run makes it again")
        self.unrecorded = []
        self.graph.record(kept)

    def _line_up(self, due: set[str]) -> None:
        """Find out what waits for what, and what can begin."""
        self.before: dict[str, list[str]] = {name: [] for name in due}
        """Item -> due items that read from it."""
        self.missing = {name: len(self.graph.after[name] & due) for name in due}
        """Item -> how many due items it waits for."""
        for name in due:
            for other in self.graph.after[name] & due:
                self.before[other].append(name)
        self.ranks = self._ranks(due)
        self.ready = [(-self.ranks[name], name) for name in due if not self.missing[name]]
        """Items that can begin, as a heap: first those on which the longest work builds."""
        heapq.heapify(self.ready)

    def _ranks(self, due: set[str]) -> dict[str, float]:
        """Item -> seconds of the longest chain of work that begins with it."""
        ranks: dict[str, float] = {}

        def rank(name: str) -> float:
            if name not in ranks:
                ranks[name] = self.times.of(name) + max((rank(reader) for reader in self.before[name]), default=0.0)
            return ranks[name]

        return {name: rank(name) for name in due}

    def _to_go(self) -> float:
        """Seconds until the end, as far as times of items are known."""
        now = time.time()
        running = {name: max(1.0, self.times.of(name) - (now - began)) for name, began in self.state.running.items()}
        left = sum(
            self.times.of(name)
            for name in self.state.waiting
            if name in self.changed or not self.state.waiting.isdisjoint(self.graph.after[name])
        )
        longest = max((self.ranks[name] for name in self.state.waiting), default=0.0) if self.state.waiting else 0.0
        return max((left + sum(running.values())) / self.jobs, longest, *running.values(), 0.0)

    def _line(self, name: str) -> str:
        """The one line of progress of the whole study."""
        state = self.state
        word = "failed" if name in state.failed else "done"
        failed = f", {len(state.failed)} failed" if state.failed else ""
        count = len(state.done) + len(state.failed)
        of = count + len(state.running) + len(state.waiting)
        going = f"{len(state.running)} running, {self.times.text(self._to_go())}"
        return f"{word:8} {name}  [{count} of {of}{failed}, {going}]"

    def _report(self) -> int:
        state = self.state
        if not state.failed:
            self.say(f"done: {len(state.done)} items")
            return 0
        counts = f"done: {len(state.done)} items; failed: {len(state.failed)}"
        lines = [f"{counts}; not begun, because they build on these: {len(state.blocked)}"]
        for name, output in state.failed.items():
            lines.append(f"  {name}: {reason_of(output)}\n    log: .finetrace/logs/{name.replace('/', '-')}.log")
        lines.append(
            "Mend the cause and run the same command again: what is done stays. `finetrace publish` shows in MLflow "
            "what there is."
        )
        self.say("\n".join(lines))
        return 1


def _show(name: str, line: str) -> None:
    sys.stderr.write(line + "\n")


def _last_words(ended: Finished) -> str:
    """What an item that failed printed last, and which signal ended it."""
    text = ended.output.strip()
    if ended.code >= 0:
        return text
    number = -ended.code
    hint = "; where nobody did that, memory was short: take fewer --jobs" if number == signal.SIGKILL else ""
    return f"{text}\nwas ended by {signal.Signals(number).name}{hint}".strip()


def reason_of(output: str) -> str:
    """The line that says why, of the last lines of a stage."""
    lines = [line for line in output.splitlines() if line.strip()]
    for start, line in enumerate(lines):
        if line.startswith("finetrace: stage"):
            return "\n    ".join(each for each in lines[start:] if not each.startswith("  log:")).removeprefix(
                "finetrace: "
            )
    return lines[-1] if lines else "ended without a word"
