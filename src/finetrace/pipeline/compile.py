"""params.yaml compiled: plan.yaml, over which dvc.yaml loops, and settings/, on which the stages depend."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.pipeline.accepted import accepted
from finetrace.pipeline.fingerprint import Fingerprints
from finetrace.store.files import write_text
from finetrace.study import Study, load_study
from finetrace.study.plan import STAGES, Item, last_settings, plan_of

WORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
HEAD = (
    "# Made from params.yaml by `finetrace plan`: the items of every stage, over which dvc.yaml loops. Do not edit.\n"
)


def write_plan(layout: Layout, study: Study, items: Sequence[Item] | None = None) -> bool:
    """Write plan.yaml where it differs from what the study needs; whether it did. items: `plan_of(study)`."""
    text = plan_text(study, items)
    if layout.plan.is_file() and layout.plan.read_text("utf-8") == text:
        return False
    write_text(layout.plan, text)
    return True


def plan_text(study: Study, items: Sequence[Item] | None = None) -> str:
    """plan.yaml: plan -> stage -> item -> paths. JSON's notation is YAML's, and says names that look like numbers as
    texts."""
    lines = [HEAD + "plan:"]
    of_stage: dict[str, list[Item]] = {stage: [] for stage in STAGES}
    for item in plan_of(study) if items is None else items:
        of_stage[item.stage].append(item)
    for stage, own in of_stage.items():
        lines.append(f"  {stage}:{'' if own else ' {}'}")
        lines += [f"    {_scalar(item.key)}: {_flow(item.paths)}" for item in own]
    return "\n".join(lines) + "\n"


def write_settings(layout: Layout, study: Study, items: Sequence[Item] | None = None) -> list[str]:
    """Bring settings/ up to date: files whose content is right are left alone, others written or removed. Names of
    those changed.

    items: `plan_of(study)`. Raises FinetraceError for code whose meaning cannot be followed.
    """
    items = plan_of(study) if items is None else items
    wanted = {f"{item.folder}/{item.key}.json": item.asked for item in items if item.asked is not None}
    wanted |= {f"{stage}/{stage}.json": asked for stage, asked in last_settings(study).items()}
    if vouched := {script: entry["because"] for script, entry in accepted(layout).entries.items()}:
        for name in ("atlas/atlas.json", "publish/publish.json"):  # they say so
            wanted[name] = wanted[name] | {"accepted": vouched}
    # not sorted: a search draws its dimensions in the order in which a study names them
    texts = {name: json.dumps(asked, indent=1, ensure_ascii=False) + "\n" for name, asked in wanted.items()}
    texts |= {f"code/{name}.json": text for name, text in code_texts(layout).items()}
    changed = []
    for name, text in texts.items():
        path = layout.settings / name
        if not (path.is_file() and path.read_text("utf-8") == text):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
            changed.append(name)
    for path in sorted(layout.settings.rglob("*")):
        if path.is_file() and path.relative_to(layout.settings).as_posix() not in texts:
            changed.append(path.relative_to(layout.settings).as_posix())
            path.unlink()
    return changed


def code_contents(layout: Layout) -> dict[str, dict[str, Any]]:
    """Script -> the fingerprint of its code as it stands, with what it is made of."""
    prints = Fingerprints(layout.root, cache=layout.home / ".finetrace" / "modules.json")
    return {script.stem: asdict(prints.of(script)) for script in sorted((layout.root / "pipelines").glob("*.py"))}


def code_texts(layout: Layout) -> dict[str, str]:
    """Script -> content of its file in settings/code: that of its code, or of the code whose results an author
    accepted."""
    vouched = accepted(layout)
    return {
        script: json.dumps(vouched.apply(script, content), indent=1, sort_keys=True) + "\n"
        for script, content in code_contents(layout).items()
    }


def require_project(layout: Layout) -> None:
    """Raise FinetraceError in a folder that is no project."""
    if not (layout.root / "dvc.yaml").is_file():
        raise FinetraceError(f"{layout.root}: has no dvc.yaml; run this in the project folder")


def compile_study(layout: Layout) -> tuple[Study, bool]:
    """Check the study, and bring plan.yaml and settings/ up to date; the study, and whether the plan changed."""
    require_project(layout)
    study = load_study(layout.params)
    items = plan_of(study)
    changed = write_plan(layout, study, items)
    write_settings(layout, study, items)
    return study, changed


def _flow(paths: dict[str, str]) -> str:
    """A small mapping on one line."""
    return "{" + ", ".join(f"{name}: {_scalar(path)}" for name, path in paths.items()) + "}"


def _scalar(text: str) -> str:
    """A text as it stands in YAML: without quotes only where no version of YAML reads a number, a date,
    a truth or nothing."""
    plain = re.fullmatch(r"[A-Za-z][\w/.-]*", text, re.ASCII) and text.lower() not in WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)
