"""Settings files of single stage items, as `finetrace plan` compiles them, for tests that run one stage."""

import hashlib
import json
from pathlib import Path
from typing import Any

from finetrace.layout import Layout
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.study import Study, parse_study
from finetrace.study.plan import last_settings, plan_of


def ask(root: Path, stage: str, item: str = "", *, code: str = "measure", draw: str = "draw", **asked: Any) -> None:
    """Write settings/STAGE/ITEM.json and settings/code/SCRIPT.json of a project at `root`; code, draw: stand for
    fingerprints."""
    folder = root / "settings"
    (folder / stage).mkdir(parents=True, exist_ok=True)
    (folder / "code").mkdir(exist_ok=True)
    (folder / stage / f"{item or stage}.json").write_text(json.dumps({"study_seed": 0} | asked))
    prints = {half: hashlib.sha256(text.encode()).hexdigest() for half, text in (("measure", code), ("draw", draw))}
    (folder / "code" / f"{stage.replace('-', '_')}.json").write_text(json.dumps(prints))


def of_run(place: str, **asked: Any) -> dict[str, Any]:
    """What the settings file of a fine-tuning's item says besides its sections; place: MODEL/TASK/METHOD/sSEED."""
    model, task, method, seed = place.split("/")
    return {"place": place, "model": model, "task": task, "method": method, "seed": int(seed[1:])} | asked


def ask_study(root: Path, content: dict[str, Any]) -> Study:
    """Write the settings files of every item of a study, given as the content of params.yaml."""
    study = parse_study(content, "params.yaml")
    for item in plan_of(study):
        if item.asked is not None:
            ask(root, item.folder, item.key, **item.asked)
    for stage, asked in last_settings(study).items():
        ask(root, stage, **asked)
    return study


def stage_of(root: Path, stage: str, item: str = "") -> Stage:
    """A stage item whose settings files are there, in a project at `root`."""
    return open_stage(stage, item, Layout(root, root))
