"""A small project with code of its own: two scripts with figures, and the modules that they reach."""

from pathlib import Path
from typing import Any

from finetrace.layout import Layout
from finetrace.store.files import write_text, write_yaml

RANK, STYLE, SHARED = "src/finetrace/lenses/rank.py", "src/finetrace/figures/style.py", "src/finetrace/shared.py"
CODE = {
    "dvc.yaml": "stages: {}\n",
    **dict.fromkeys([f"src/finetrace{part}/__init__.py" for part in ("", "/lenses", "/figures")], ""),
    SHARED: "UNIT = 1\n",
    RANK: "from finetrace import shared\n\ndef rank(x):\n    return x - shared.UNIT\n",
    STYLE: "BLUE = 'blue'\n",
    "pipelines/geometry.py": "from finetrace.figures import style\nfrom finetrace.lenses.rank import rank\n",
    "pipelines/cross_task.py": "from finetrace.figures import style\nfrom finetrace.shared import UNIT\n",
}
STUDY: dict[str, Any] = {
    "study": {"name": "demo", "seed": 3},
    "pretrain": {"micro-a": {"steps": 10}},
    "tasks": {"micro-sentiment": {"source": "micro"}},
    "runs": [{"model": "micro-a", "task": "micro-sentiment"}],
    "look": {"geometry": "all"},
}


def code_project(root: Path, **sections: Any) -> Layout:
    """Write it; sections: of params.yaml, beside or in place of STUDY's."""
    for name, text in CODE.items():
        write_text(root / name, text)
    write_yaml(root / "params.yaml", STUDY | sections)
    return Layout(root, root)


def edit(root: Path, name: str, old: str, new: str) -> None:
    """Change the text of a file, which must hold `old`."""
    text = (root / name).read_text("utf-8")
    assert old in text
    (root / name).write_text(text.replace(old, new), "utf-8")
