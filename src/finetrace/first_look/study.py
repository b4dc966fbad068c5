"""The study that looks at the same models in full, as YAML."""

import os
from pathlib import Path
from typing import Any

from finetrace.first_look.request import LENSES
from finetrace.first_look.run import Look, comparison_name
from finetrace.layout import slug

HEAD = """# What a first look began: {command}
# Choose it with `finetrace use`, run it with `finetrace repro`. Each entry of `series` is one model as it is, step 0;
# further checkpoints, of a training of yours or of the hub, are more `steps` of it (docs/use.md, "Checkpoints that you
# have").
"""


def study_of(result: Look, command: str, base: Path | None) -> str:
    """The study's text.

    command: the first look's, for the head;  base: the project folder, from which its paths count; None outside of
    one, where they are absolute.
    """
    import yaml

    names = _names(result)
    task, lenses = result.task, [lens for lens in LENSES if lens in result.request.lenses]
    content: dict[str, Any] = {"study": {"name": slug(f"look-{task.name}"), "seed": result.request.seed}}
    if task.settings is not None:
        settings = dict(task.settings)
        if "path" in settings:
            settings["path"] = _relative_path(base, Path(settings["path"]))
        content[task.section] = {task.name: settings}
    else:  # a finished folder of tables: its splits are files like others
        content["task_files"] = {task.name: {
            "path": _relative_path(base, task.folder), "text": ["text_a", "text_b"] if task.kind == "pair"
            else ["text_a"], "label": "label", "label_names": list(task.label_names)}}
    content["series"] = {}
    for source in result.sources:
        entry: dict[str, Any] = {"path": _relative_path(base, source.folder)}
        if source.commit:
            entry = {"id": source.named.partition("@")[0], "revision": source.commit}
        if source.base != source.folder:
            entry["tokenizer"] = _relative_path(base, source.base)
        entry["tasks"] = [task.name]
        if "calibration" in result.of_model[source.name]:
            entry["head"] = task.name
        content["series"][names[source.name]] = entry
    places = {name: f"{short}/{task.name}/given/s1" for name, short in names.items()}
    layers = [lens for lens in lenses if lens != "calibration"]
    content["look"] = {", ".join(layers): "all"} if layers else {}
    with_head = [places[name] for name, parts in result.of_model.items() if "calibration" in parts]
    if with_head:
        content["look"]["calibration"] = with_head
    if result.of_pair:
        content["comparisons"] = {comparison_name(first, second): {"first": places[first], "second": places[second]}
                                  for first, second in result.of_pair}
    return HEAD.format(command=command) + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _names(result: Look) -> dict[str, str]:
    """Model -> its name in the study, a folder name that no other has."""
    names: dict[str, str] = {}
    for source in result.sources:
        name, number = slug(source.name.partition("@")[0], "model"), 1
        while name in names.values():
            number += 1
            name = f"{slug(source.name.partition('@')[0], 'model')}-{number}"
        names[source.name] = name
    return names


def _relative_path(base: Path | None, path: Path) -> str:
    """A path as the project folder sees it: relative where it lies within, else absolute."""
    absolute = Path(os.path.abspath(path))
    if base is None:
        return absolute.as_posix()
    root = Path(os.path.abspath(base))
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else absolute.as_posix()
