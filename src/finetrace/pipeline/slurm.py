"""A study as a script for SLURM: `finetrace plan --slurm > study.sh`, then `bash study.sh` where sbatch is.

Items of one stage that can run at the same time are one job array; an array begins when those that it reads from have
ended. A last job runs `finetrace repro`, which finds finished folders whole, records them in dvc.lock from this one
place, and makes what is missing. The machines share the project folder; the script is plain text to read and change.
"""

import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finetrace.layout import Layout
from finetrace.pipeline.graph import FIRST, Graph, builds_on, opened
from finetrace.pipeline.needs import GIB, Estimate, Machines, Needs, is_micro, read_machines
from finetrace.pipeline.times import Times
from finetrace.store import threads
from finetrace.study import Study

LARGEST = 1000
"""Tasks of an array: SLURM's MaxArraySize is 1001 unless it was changed."""
LEAST = 300.0
"""Seconds that a task of an array should last at least: short items share one, as starting a job takes a while."""
HEAD = """\
#!/bin/bash
# Made by `finetrace plan --slurm`: {items} items in {arrays} job arrays, about {hours:.1f} hours one by one.
# Run it where sbatch is: bash study.sh. All machines see this folder under the same path.
# An array begins when those before it have ended, however they ended: an item that lacks its input says so and fails,
# the others go on. The last job records what is whole in dvc.lock, and makes what is missing or says why it cannot.
set -euo pipefail
cd {folder}
mkdir -p .finetrace/logs
submit() {{ sbatch --parsable --chdir={folder} --output=.finetrace/logs/slurm-%x-%A_%a.out{options} "$@"; }}
"""
BODY = """\
#!/bin/bash
export PATH={path}:$PATH DVC_ROOT={folder} FINETRACE_LINES=1
export {threads}="${{SLURM_CPUS_PER_TASK:-1}}" OMP_NUM_THREADS="${{SLURM_CPUS_PER_TASK:-1}}"
number=0 code=0
item() {{ if (( number++ % {tasks} == SLURM_ARRAY_TASK_ID )); then DVC_STAGE="$1" bash -c "$2" || code=1; fi; }}
"""


@dataclass
class Array:
    """Items of one stage that can run at the same time. tasks: jobs of the array, which share the items;
    after: names of the arrays that it waits for."""

    name: str
    items: list[str] = field(default_factory=list)
    after: set[str] = field(default_factory=set)
    needs: Needs = field(default_factory=Needs)
    tasks: int = 1
    hours: float | None = None
    """Longest time of a task; None: the cluster's own."""


def slurm_script(layout: Layout, study: Study) -> str:
    """The script that makes what is out of date of a compiled study, or one that says that nothing is."""
    machines = read_machines(layout)
    with opened(layout.root) as graph:
        return _script(layout, graph, machines, Estimate(machines, micro=is_micro(study)))


def _script(layout: Layout, graph: Graph, machines: Machines, estimate: Estimate) -> str:
    stale = {name for name in graph.stages if name not in FIRST and graph.changes(name)}
    due = builds_on(graph.after, stale)
    if not due:
        return "#!/bin/bash\necho 'Data and pipelines are up to date.'\n"
    times = Times(layout.home / ".finetrace" / "times.json")
    arrays = arrays_of(graph.after, due)
    for array in arrays:
        _size(array, graph, estimate, times)
    folder = shlex.quote(str(layout.root.resolve()))
    options = "".join(f" {shlex.quote(option)}" for option in machines.slurm)
    hours = sum(map(times.of, due)) / 3600
    text = [HEAD.format(items=len(due), arrays=len(arrays), hours=hours, folder=folder, options=options)]
    text += [_submission(array, graph, folder) for array in arrays]
    everything = ":".join(f"${array.name}" for array in arrays)
    text.append(f"submit --job-name=record --dependency=afterany:{everything} <<'END' > /dev/null\n#!/bin/bash\n"
                f"export PATH={_path()}:$PATH\nexec {_path()}/python -m finetrace.cli repro --jobs 1\nEND\n"
                f"echo \"submitted; squeue --me shows them, .finetrace/logs what they say\"\n")
    return "\n".join(text)


def arrays_of(after: Mapping[str, set[str]], due: set[str]) -> list[Array]:
    """Due items by level and stage, in an order in which they can be submitted.

    after: item -> the items whose outputs it reads. An item's level is the number of due items on the longest way to
    it.
    """
    levels: dict[str, int] = {}

    def level(name: str) -> int:
        if name not in levels:
            levels[name] = 1 + max((level(other) for other in after[name] & due), default=0)
        return levels[name]

    def array_name(name: str) -> str:
        return f"{name.partition('@')[0].replace('-', '_')}_{level(name)}"

    arrays: dict[str, Array] = {}
    for name in sorted(due, key=lambda each: (level(each), each.partition("@"))):
        array = arrays.setdefault(array_name(name), Array(array_name(name)))
        array.items.append(name)
        array.after |= {array_name(other) for other in after[name] & due}
    return list(arrays.values())


def _size(array: Array, graph: Graph, estimate: Estimate, times: Times) -> None:
    """Set what a task of the array asks for, the largest of its items, and how many tasks there are."""
    needs = [estimate.of(name, graph.folders(name)) for name in array.items]
    array.needs = Needs(max(each.cpus for each in needs), max(each.gpus for each in needs),
                        max(each.memory for each in needs))
    seconds = [times.of(name) for name in array.items]
    known = all(times.knows(name) for name in array.items)
    tasks = math.ceil(sum(seconds) / LEAST) if known else len(array.items)
    array.tasks = max(1, min(tasks, len(array.items), LARGEST))
    said = [hours for name in array.items if (hours := estimate.said(name).hours) is not None]
    if said:
        array.hours = max(said) * math.ceil(len(array.items) / array.tasks)


def _submission(array: Array, graph: Graph, folder: str) -> str:
    options = [f"--job-name={array.name}", f"--array=0-{array.tasks - 1}", f"--cpus-per-task={array.needs.cpus}",
               f"--mem={math.ceil(array.needs.memory * 1024 / GIB)}M"]
    options += [f"--gpus={math.ceil(array.needs.gpus)}"] if array.needs.gpus else []
    options += [f"--time={math.ceil(array.hours * 60)}"] if array.hours is not None else []
    before = ":".join(f"${other}" for other in sorted(array.after))
    options += [f"--dependency=afterany:{before}"] if before else []
    body = BODY.format(path=_path(), folder=folder, threads=threads.NAME, tasks=array.tasks)
    items = [f"item {shlex.quote(name)} {shlex.quote(graph.command(name))}" for name in array.items]
    command = f"{array.name}=$(submit {' '.join(options)} <<'END'"
    return "\n".join([command, body + "\n".join(items), "exit $code", "END", ")", ""])


def _path() -> str:
    """The folder of this interpreter, which the items' commands call python."""
    return shlex.quote(str(Path(sys.executable).parent))
