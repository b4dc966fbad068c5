"""The script for SLURM: which items are an array, what they wait for, what they ask for; bash understands it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from finetrace.layout import Layout
from finetrace.pipeline.needs import Estimate, Machines, NeedsSettings
from finetrace.pipeline.slurm import _script, arrays_of

AFTER: dict[str, set[str]] = {
    "data@t": set(),
    "train@a": {"data@t"},
    "train@it's": {"data@t"},
    "train-tuned@b": {"data@t"},
    "geometry@a": {"train@a"},
    "atlas": {"geometry@a", "train@it's", "train-tuned@b"},
}


class FakeGraph:
    def __init__(self, stale: set[str]):
        self.stages, self.after, self.stale = dict.fromkeys(["plan", "settings", *AFTER]), AFTER, stale

    def changes(self, name: str) -> list[str]:
        return ["x"] if name in self.stale else []

    def folders(self, name: str) -> list[Path]:
        return []

    def command(self, name: str) -> str:
        return f"echo {name.partition('@')[0]} $FINETRACE_THREADS \"$DVC_STAGE\" >> ran"


def script(folder: Path, stale: set[str], machines: Machines = Machines()) -> str:  # noqa: B008
    graph: Any = FakeGraph(stale)
    return _script(Layout(folder, folder), graph, machines, Estimate(machines, micro=True))


def test_items_of_a_stage_that_can_run_at_the_same_time_are_an_array() -> None:
    arrays = {array.name: array for array in arrays_of(AFTER, set(AFTER))}
    assert list(arrays) == ["data_1", "train_2", "train_tuned_2", "geometry_3", "atlas_4"]
    assert arrays["train_2"].items == ["train@a", "train@it's"] and arrays["train_2"].after == {"data_1"}
    assert arrays["atlas_4"].after == {"geometry_3", "train_2", "train_tuned_2"}
    assert [array.name for array in arrays_of(AFTER, {"geometry@a", "atlas"})] == ["geometry_1", "atlas_2"]


def test_only_what_is_out_of_date_is_submitted(tmp_path: Path) -> None:
    assert "up to date" in script(tmp_path, set()) and "sbatch" not in script(tmp_path, set())
    text = script(tmp_path, {"geometry@a"})
    assert "2 items in 2 job arrays" in text and "geometry_1=$(" in text and "train" not in text


def test_what_items_need_becomes_options(tmp_path: Path) -> None:
    machines = Machines({"train@*": NeedsSettings(cpus=4, gpus=0.5, memory_gib=1.5, hours=2)}, ("--partition=short x",))
    text = script(tmp_path, set(AFTER), machines)
    assert "--job-name=train_2 --array=0-1 --cpus-per-task=4 --mem=1536M --gpus=1 --time=120 " in text
    assert "--job-name=geometry_3 --array=0-0 --cpus-per-task=1 --mem=2048M --dependency" in text
    assert "'--partition=short x'" in text


def test_short_items_share_a_task_once_it_is_known_how_long_they_take(tmp_path: Path) -> None:
    (tmp_path / ".finetrace").mkdir()
    (tmp_path / ".finetrace/times.json").write_text('{"train@a": 200}')
    assert "--job-name=train_2 --array=0-1 " in script(tmp_path, set(AFTER))
    (tmp_path / ".finetrace/times.json").write_text('{"train@a": 20}')
    assert "--job-name=train_2 --array=0-0 " in script(tmp_path, set(AFTER))


@pytest.fixture
def sbatch(tmp_path: Path) -> Path:
    """A program of this name that runs a job at once, task by task, and says a number."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(SBATCH)
    (folder / "sbatch").chmod(0o755)
    return folder


SBATCH = r"""#!/bin/bash
echo "$@" >> submitted
last=0
for option in "$@"; do
  case $option in
    --array=0-*) last=${option#--array=0-} ;;
    --cpus-per-task=*) export SLURM_CPUS_PER_TASK=${option#--cpus-per-task=} ;;
  esac
done
cat > body
for ((i = 0; i <= last; i++)); do
  if [[ "$*" != *job-name=record* || $RECORD ]]; then SLURM_ARRAY_TASK_ID=$i bash body > /dev/null 2>> said; fi
done
wc -l < submitted
"""


def test_bash_runs_it(tmp_path: Path, sbatch: Path) -> None:
    project = tmp_path / "it's mine"
    project.mkdir()
    machines = Machines({"train@*": NeedsSettings(cpus=3)})
    done = subprocess.run(["bash", "-c", script(project, set(AFTER), machines)], capture_output=True, text=True,
                          env={"PATH": f"{sbatch}:/usr/bin:/bin"}, check=True)
    assert (project / "ran").read_text().splitlines() == [
        "data 1 data@t", "train 3 train@a", "train 3 train@it's", "train-tuned 1 train-tuned@b",
        "geometry 1 geometry@a", "atlas 1 atlas"]
    submitted = (project / "submitted").read_text().splitlines()
    assert len(submitted) == 6 and "--dependency=afterany:1" in submitted[1] and "afterany:4:2:3" in submitted[4]
    assert "--job-name=record --dependency=afterany:1:2:3:4:5" in submitted[5] and "squeue" in done.stdout
