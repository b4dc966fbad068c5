"""dvc.lock on another kind of processor than the one of the committed file.

Floating-point results differ in their last bits between kinds of processors, and dvc.lock holds hashes of results.
The committed lock is true for one kind; DVC does not work with a lock that git ignores, and without the right hashes
it would make everything again. So where a lock differs from the committed one in nothing but hashes of results -
same stages, commands, settings and code -, git is told to leave the file alone (skip-worktree): it is no change of
the project, and nobody's first run leaves a dirty tree. As soon as the study or the code differs, git is told to
look at it again.
"""

import subprocess
from pathlib import Path
from typing import Any

from finetrace.layout import Layout

NAME = "dvc.lock"


def leave_alone(layout: Layout) -> str:
    """Tell git to leave dvc.lock alone, or to look at it again; a line for the user when that changed, else empty.

    Does nothing outside git, where the file is not committed, or where it is the committed one.
    """
    if layout.root != layout.home:  # an experiment's temporary folder
        return ""
    committed = _git(layout, "show", f"HEAD:./{NAME}")
    if committed is None or not (layout.root / NAME).is_file():
        return ""
    hidden = (_git(layout, "ls-files", "-v", "--", NAME) or "").startswith("S ")
    text = (layout.root / NAME).read_text("utf-8")
    alone = text != committed and _asked(text) == _asked(committed) and _made(text) != _made(committed)
    if alone == hidden:
        return ""
    _git(layout, "update-index", "--skip-worktree" if alone else "--no-skip-worktree", "--", NAME)
    if not alone:
        return ""
    return (
        "dvc.lock: this processor's results differ from the committed ones in their last bits, so git is told to "
        "leave the file alone "
        "(docs/use.md; undo: git update-index --no-skip-worktree dvc.lock)"
    )


def _asked(text: str) -> Any:
    """What a lock says was asked for: stages, commands, settings and code, without hashes of results."""
    return {
        name: (
            stage.get("cmd"),
            [
                (dep["path"], dep.get("md5"))
                for dep in stage.get("deps", ())
                if Path(dep["path"]).parts[0] in ("settings", "src", "pipelines", "params.yaml")
            ],
        )
        for name, stage in _stages(text).items()
    }


def _made(text: str) -> Any:
    """The hashes of results in a lock, but for those of stages that read the whole of outputs/, where folders of other
    studies may lie."""
    return {
        name: [out.get("md5") for out in stage.get("outs", ())]
        for name, stage in _stages(text).items()
        if "outputs" not in {dep["path"] for dep in stage.get("deps", ())}
    }


def _stages(text: str) -> dict[str, Any]:
    import yaml

    content = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return content.get("stages") or {}


def _git(layout: Layout, *words: str) -> str | None:
    """What a git command prints; None when it fails or there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(layout.root), *words], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
