"""dvc.lock on another kind of processor than the one of the committed file.

Floating-point results differ in their last bits between kinds of processors, and dvc.lock holds hashes of results. The
committed lock is true for one kind; DVC does not work with a lock that git ignores, and without the right hashes it
would make everything again. So where a lock differs from the committed one in nothing but hashes of results - same
stages, commands, settings and code -, and no remote is there from which others could take these results, git gets the
committed content for the file whatever it holds (a clean filter in this clone's own configuration): it is no change of
the project, nobody's first run leaves a dirty tree, and a later `git pull` replaces the file without a word. What lies
under its hashes stays in DVC's cache, so that nothing is made again then. As soon as the study or the code differs, or
there is a remote, git sees the file as it is.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

from finetrace.layout import Layout

NAME = "dvc.lock"
FILTER = "filter.finetrace-results.clean"
COMMITTED = "git cat-file blob :%f"
"""What git runs for the content of the file: the one that is staged or committed. %f is its path, quoted by git."""


def leave_alone(layout: Layout, remote: bool) -> str:
    """Let git take dvc.lock for the committed one, or look at it again; a line for the user where there is something
    to know, else empty.

    remote: whether results can be pushed to where others get them. Does nothing outside git, where the file is not
    committed, and in an experiment's temporary folder.
    """
    if layout.root != layout.home:
        return ""
    committed = _git(layout, "show", f"HEAD:./{NAME}")
    if committed is None or not (layout.root / NAME).is_file():
        return ""
    hidden = _git(layout, "config", "--local", "--get", FILTER) is not None
    text = (layout.root / NAME).read_text("utf-8")
    other_bits = text != committed and _asked(text) == _asked(committed) and _made(text) != _made(committed)
    if other_bits and not remote:
        _hide(layout)
        return "" if hidden else (
            "dvc.lock: this processor's results differ from the committed ones in their last bits, so git takes the "
            f"file for the committed one (docs/scale.md; undo: git config --unset {FILTER} && touch {NAME})"
        )
    if hidden:
        _git(layout, "config", "--local", "--unset", FILTER)
        os.utime(layout.root / NAME)  # else git trusts what it remembers of it
    if text != committed and remote:
        return "dvc.lock: names this machine's results; dvc push, and commit it, so that others get them by dvc pull"
    return ""


def _hide(layout: Layout) -> None:
    """Let git read the committed content instead of the file's, now and when the file changes."""
    if (_git(layout, "ls-files", "-v", "--", NAME) or "").startswith("S "):  # as earlier versions did it
        _git(layout, "update-index", "--no-skip-worktree", "--", NAME)
    place = (_git(layout, "rev-parse", "--git-path", "info/attributes") or "").strip()
    prefix = (_git(layout, "rev-parse", "--show-prefix") or "").rstrip("\n")
    attributes, line = layout.root / place, f'"/{prefix}{NAME}" filter=finetrace-results\n'
    known = attributes.read_text("utf-8") if attributes.is_file() else ""
    if line not in known:
        attributes.parent.mkdir(parents=True, exist_ok=True)
        with open(attributes, "a", encoding="utf-8") as stream:
            stream.write(line if known.endswith("\n") or not known else f"\n{line}")
    _git(layout, "config", "--local", FILTER, COMMITTED)
    _git(layout, "update-index", "--", NAME)  # remembers the size of the file, which tells git to look no further


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
