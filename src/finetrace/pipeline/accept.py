"""Results kept over a change of code that its author vouches for.

`finetrace accept STAGE --because "..."` writes the fingerprint of the code that made the results, and that of the
code which takes its place, into accepted.yaml, a file of the project. As long as the code is the accepted one,
settings/code says the old fingerprint, so that nothing of the stage runs again; manifests of what is made meanwhile,
the atlas and MLflow say so. Any further change of the code ends it.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.layout import OF_SCRIPT, Layout
from finetrace.pipeline.accepted import HALVES, NAME, accepted
from finetrace.store.files import write_yaml


def _recorded_contents(layout: Layout) -> dict[str, dict[str, Any]]:
    """Script -> content of settings/code/SCRIPT.json when the results in dvc.lock were made: from settings/, or from
    DVC's cache."""
    lock, contents = layout.root / "dvc.lock", {}
    hashes = (
        dict(re.findall(r"path: settings/code/(\w+)\.json\n\s+hash: md5\n\s+md5: (\w+)", lock.read_text("utf-8")))
        if lock.is_file()
        else {}
    )
    for script, md5 in hashes.items():
        for path in (
            layout.settings / "code" / f"{script}.json",
            layout.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:],
        ):
            if path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() == md5:
                contents[script] = json.loads(path.read_text("utf-8"))
    return contents


def accept(layout: Layout, stages: Sequence[str], because: str) -> list[str]:
    """Vouch that the code as it stands gives what the code in settings/code gave; a line about each script.

    Raises FinetraceError for an unknown stage, an empty reason, or when there is nothing to accept.
    """
    from finetrace.pipeline.compile import code_contents, write_settings
    from finetrace.study import load_study

    if not because.strip():
        raise FinetraceError("--because: say why the change alters no result")
    current = code_contents(layout)
    script_names = [OF_SCRIPT.get(stage, stage).replace("-", "_") for stage in stages]
    scripts = sorted(current) if list(stages) == ["all"] else list(dict.fromkeys(script_names))
    if unknown := [script for script in scripts if script not in current]:
        raise FinetraceError(
            f"{unknown[0]}: is no stage with a script in pipelines/; there are: {', '.join(sorted(current))}"
        )
    recorded = _recorded_contents(layout)
    entries, lines = dict(accepted(layout).entries), []
    for script in scripts:
        earlier = recorded.get(script)
        if earlier is None or all(earlier[half] == current[script][half] for half in HALVES):
            continue
        entries[script] = {"because": because, "content": earlier} | {half: current[script][half] for half in HALVES}
        changed = sorted(
            name
            for name in {*earlier["modules"], *current[script]["modules"]}
            if earlier["modules"].get(name) != current[script]["modules"].get(name)
        )
        lines.append(f"{script}: its results stand, although these changed: {', '.join(changed)}")
    if not lines:
        raise FinetraceError(
            f"nothing to accept: the results of {', '.join(stages)} are of this code, or there are none"
        )
    study = load_study(layout.params)
    write_yaml(layout.root / NAME, entries)
    write_settings(layout, study)
    return lines
