"""Settings files of single stage items, as `finetrace plan` compiles them, for tests that run one stage."""

import hashlib
import json
from pathlib import Path
from typing import Any


def ask(root: Path, stage: str, item: str = "", *, code: str = "measure", draw: str = "draw", **asked: Any) -> None:
    """Write settings/STAGE/ITEM.json and settings/code/SCRIPT.json of a project at `root`; code, draw: stand for fingerprints."""
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
