"""What an item is called in DVC, also where its script is run by hand: two stages can share a script."""

import os
from pathlib import Path

from finetrace.layout import OF_SCRIPT, Layout


def label_of(stage: str, item: str, layout: Layout) -> str:
    """`stage@item` as DVC names it: DVC and the driver say so; by hand, plan.yaml does."""
    if dvc_name := os.environ.get("DVC_STAGE"):
        return dvc_name
    for other in [name for name, script in OF_SCRIPT.items() if script == stage]:
        if item in _items(layout.plan, other):
            stage = other
    return f"{stage}@{item}" if item else stage


def _items(plan: Path, stage: str) -> set[str]:
    """The items of a stage, or none where there is no plan that can be read."""
    import yaml

    try:
        return set(yaml.safe_load(plan.read_text("utf-8"))["plan"][stage])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return set()
