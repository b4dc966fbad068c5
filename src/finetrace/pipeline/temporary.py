"""An experiment in a temporary folder (`dvc exp run --temp`, `--queue`) sees what git knows, and nothing else."""

import shlex
import subprocess

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.study import Study, load_study
from finetrace.study.plan import plan_of

DECIDING = ("params.yaml", "accepted.yaml", "requirements.lock", "src", "pipelines")
"""Files and folders that decide what a study gives."""
SHOWN = 5  # files that a message names


def whole_study(layout: Layout) -> Study:
    """The study in params.yaml, with all that it reads in the workspace.

    Raises FinetraceError when the workspace is a temporary copy of the project that lacks code, settings or data of
    it: files that git does not know, or was told to ignore.
    """
    copied = layout.root.resolve() != layout.home.resolve()
    if copied and (unknown := _unknown_to_git(layout)):
        raise FinetraceError(f"{_first_names(unknown)}: git does not know {_pronoun(unknown)}, so that an experiment "
                             f"in a temporary folder lacks {_pronoun(unknown)}; git add {shlex.join(unknown)}, and run "
                             "the same command again")
    study = load_study(layout.params)
    if copied and (absent := _absent_paths(layout, study)):
        options = " ".join(f"--copy-paths {shlex.quote(name)}" for name in absent)
        raise FinetraceError(f"{_first_names(absent)}: git does not know {_pronoun(absent)} or ignores "
                             f"{_pronoun(absent)}, so that an experiment in a temporary folder lacks "
                             f"{_pronoun(absent)}; git add {shlex.join(absent)}, or run it with {options}")
    return study


def _unknown_to_git(layout: Layout) -> list[str]:
    """Files of the project that decide results and that git neither has nor ignores, as paths from the project."""
    untracked = subprocess.run(["git", "-C", str(layout.home), "ls-files", "-z", "--others", "--exclude-standard", "--",
                                *DECIDING], capture_output=True, text=True)
    names = sorted(name for name in untracked.stdout.split("\0") if name) if untracked.returncode == 0 else []
    return [name for name in names if not (layout.root / name).exists()]  # one may have been copied by hand


def _absent_paths(layout: Layout, study: Study) -> list[str]:
    """Paths that the study reads, which the project has and the workspace lacks."""
    # elsewhere `path` alone is the user's; the rest is made by stages
    user_paths = {"directprobe": ("config", "inputs")}
    paths = {item.paths[name] for item in plan_of(study) for name in user_paths.get(item.stage, ("path",))
             if name in item.paths}
    return sorted(name for name in paths if (layout.home / name).exists() and not (layout.root / name).exists())


def _first_names(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def _pronoun(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"
