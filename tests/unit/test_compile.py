"""params.yaml compiled: the plan says every name as it is, settings are whole, and dvc.yaml asks for what is there."""

import ast
import dataclasses
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ruamel.yaml import YAML
from tests.code_project import RANK, STYLE, code_project, edit

from finetrace import config
from finetrace.config.base import parse
from finetrace.config.written import written
from finetrace.errors import FinetraceError
from finetrace.layout import OF_SCRIPT, Layout
from finetrace.pipeline.compile import HEAD, compile_study, plan_text, write_plan, write_settings
from finetrace.study import Study, load_study, parse_study
from finetrace.study.plan import STAGES, Item, last_settings, plan_of

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "studies").glob("*.yaml"))
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]
LAST = ("world", "atlas", "publish")
"""Stages without items that have settings."""
MAKING = ("plan", "settings")
"""Stages that make the plan and the settings."""


def named(name: str) -> Study:
    """A study in which all that can have a name of its own has this one, or one that begins with it."""
    return parse_study({
        "study": {"name": "demo"},
        "models": {name: {"id": "x/y"}},
        "pretrain": {f"{name}-a": {}},
        "adapt": {f"{name}-b": {"start": f"{name}-a/pretrain", "corpus": f"{name}-c"}},
        "tasks": {name: {"source": "micro", "config": "micro-sentiment"}},
        "task_files": {f"{name}-f": {"path": name, "text": ["a"], "label": "b"}},
        "corpora": {f"{name}-c": {"path": f"sources/{name}.txt"}},
        "facts": {f"{name}-d": {}},
        "methods": {name: {"settings": "tuned"}},
        "tune": {"space": {"epochs": {"choices": [1, 2]}}},
        "runs": [{"model": name, "task": name, "method": [name, "ft"], "seed": [1, 2]}],
        "look": {"layers, answers, infodynamics, kernel": "all", "cloze": "all"},
        "downstream": {name: {"trajectory": f"{name}-b/adapt", "task": name}},
        "dynamics": {name: {"original": [f"{name}-a/pretrain"], "adapted": [f"{name}-b/adapt"], "sources": ["cloze"]}},
        "comparisons": {name: {"first": f"{name}/{name}/ft/s1", "second": f"{name}/{name}/ft/s2"}},
        "cross_tasks": {name: {"tuned": f"{name}/{name}/ft/s1", "task": name}},
        "directprobe": {name: {"config": f"{name}.ini", "inputs": "a: b, {c}"}},
    }, "params.yaml")


# --- plan.yaml


@pytest.mark.parametrize("name", ["plain", "2024", "1.5", "1.2.3", "a.b", "bert-v1.5", "null", "true", "no", "on", "y",
                                  "1e3", "0x1f", "0o7", "2024-01-01", "12e03", "1-2"])
@pytest.mark.parametrize("reader", ["yaml 1.1", "yaml 1.2, which dvc reads"])
def test_the_plan_says_every_name_as_it_is(name: str, reader: str) -> None:
    study = named(name)
    text = plan_text(study)
    found = (yaml.safe_load(text) if reader == "yaml 1.1" else YAML(typ="safe").load(text))["plan"]
    expected: dict[str, dict[str, dict[str, str]]] = {stage: {} for stage in STAGES}
    for item in plan_of(study):
        expected[item.stage][item.key] = item.paths
    assert found == expected


def test_the_plan_is_written_only_where_it_differs(tmp_path: Path) -> None:
    layout = Layout(tmp_path, tmp_path)
    assert write_plan(layout, named("a")) and layout.plan.read_text("utf-8").startswith(HEAD)
    before = layout.plan.stat()
    assert not write_plan(layout, named("a")) and layout.plan.stat().st_mtime_ns == before.st_mtime_ns
    assert write_plan(layout, named("b"))


def test_the_plan_does_not_depend_on_settings() -> None:
    one = (ROOT / "studies/micro.yaml").read_text("utf-8")
    assert "window: 160" in one
    changed = parse_study(yaml.safe_load(one.replace("window: 160", "window: 80")), "params.yaml")
    assert plan_text(changed) == plan_text(load_study(ROOT / "studies/micro.yaml"))


# --- settings/


def times(layout: Layout) -> dict[str, int]:
    return {p.relative_to(layout.settings).as_posix(): p.stat().st_mtime_ns for p in layout.settings.rglob("*")
            if p.is_file()}


def test_settings_that_are_right_are_left_alone(tmp_path: Path) -> None:
    layout = code_project(tmp_path)
    run = "micro-a_micro-sentiment_ft_s1"
    written = write_settings(layout, load_study(layout.params))
    assert sorted(written) == sorted(times(layout)) == sorted([
        "atlas/atlas.json", "code/cross_task.json", "code/geometry.json", "data/micro-sentiment.json",
        f"geometry/{run}.json", f"hidden/{run}.json", "pretrain/micro-a.json", "publish/publish.json",
        f"train/{run}.json", "world/world.json"])
    before = times(layout)
    assert write_settings(layout, load_study(layout.params)) == [] and times(layout) == before

    edit(tmp_path, "params.yaml", "geometry: all", "geometry: all\ngeometry: {draws: 200}")
    changed = ["atlas/atlas.json", f"geometry/{run}.json"]  # the atlas has tables of the whole study
    assert sorted(write_settings(layout, load_study(layout.params))) == changed
    after = times(layout)
    assert sorted(name for name in after if after[name] != before[name]) == changed


def test_settings_that_nobody_asks_for_are_removed(tmp_path: Path) -> None:
    layout = code_project(tmp_path)
    write_settings(layout, load_study(layout.params))
    (layout.settings / "geometry" / "old.json").write_text("{}")
    (layout.settings / "gone").mkdir()
    (layout.settings / "gone" / "x.json").write_text("{}")
    edit(tmp_path, "params.yaml", "geometry: all", "infodynamics: all")
    run = "micro-a_micro-sentiment_ft_s1"
    assert sorted(write_settings(layout, load_study(layout.params))) == sorted([
        "atlas/atlas.json", "geometry/old.json", f"geometry/{run}.json", "gone/x.json", f"hidden/{run}.json",
        f"infodynamics/{run}.json"])
    assert not list(layout.settings.rglob("geometry/*.json")) and (layout.settings / "code" / "geometry.json").is_file()


def test_damaged_settings_are_written_again(tmp_path: Path) -> None:
    layout = code_project(tmp_path)
    write_settings(layout, load_study(layout.params))
    path = layout.settings / "pretrain" / "micro-a.json"
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    assert (
        write_settings(layout, load_study(layout.params)) == ["pretrain/micro-a.json"] and path.read_bytes() == content
    )


def test_the_code_of_a_script_alone_changes_its_file(tmp_path: Path) -> None:
    layout = code_project(tmp_path)
    study = load_study(layout.params)
    write_settings(layout, study)
    before = json.loads((layout.settings / "code" / "geometry.json").read_text())
    assert set(before) == {"measure", "draw", "modules", "data", "packages"}
    edit(tmp_path, RANK, "x - shared.UNIT", "x + shared.UNIT")
    assert write_settings(layout, study) == ["code/geometry.json"]
    after = json.loads((layout.settings / "code" / "geometry.json").read_text())
    assert after["measure"] != before["measure"] and after["draw"] == before["draw"]
    edit(tmp_path, RANK, "def rank", "# a comment\n\n\ndef rank")
    assert write_settings(layout, study) == []
    edit(tmp_path, STYLE, "blue", "red")
    assert sorted(write_settings(layout, study)) == ["code/cross_task.json", "code/geometry.json"]
    later = json.loads((layout.settings / "code" / "geometry.json").read_text())
    assert later["measure"] == after["measure"] and later["draw"] != after["draw"]


def test_code_that_cannot_be_followed_is_told(tmp_path: Path) -> None:
    layout = code_project(tmp_path)
    edit(tmp_path, "pipelines/geometry.py", "lenses.rank", "lenses.nothing")
    with pytest.raises(FinetraceError, match=r"geometry\.py"):
        write_settings(layout, load_study(layout.params))


def test_compiling_needs_a_project(tmp_path: Path) -> None:
    layout = code_project(tmp_path)
    study, changed = compile_study(layout)
    assert changed and study == load_study(layout.params) and not compile_study(layout)[1]
    (tmp_path / "dvc.yaml").unlink()
    with pytest.raises(FinetraceError, match=r"has no dvc\.yaml; run this in the project folder"):
        compile_study(layout)


# --- every study: what is asked for is what the scripts read


@cache
def classes() -> dict[str, Any]:
    """Every settings class by its name."""
    found: dict[str, Any] = {}
    modules = [f"finetrace.config.{one.name}" for one in pkgutil.iter_modules(config.__path__)]
    modules += [f"finetrace.lenses.{file.parent.name}.settings"
                for file in ROOT.glob("src/finetrace/lenses/*/settings.py")]
    for module in modules:
        for name, value in vars(importlib.import_module(module)).items():
            if dataclasses.is_dataclass(value) and isinstance(value, type):
                found[name] = value
    return found


@cache
def read_by(script: str) -> dict[str, list[Any]]:
    """Section -> classes as which pipelines/SCRIPT.py reads it: its calls `stage.settings("section", Class)`."""
    lens = ROOT / "src/finetrace/lenses" / script / "stage.py"
    file = lens if lens.is_file() else ROOT / "pipelines" / f"{script}.py"
    tree, found = ast.parse(file.read_text("utf-8")), dict[str, list[Any]]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "stage.settings":
            section, kind = node.args
            assert isinstance(section, ast.Constant) and isinstance(kind, ast.Name)
            found.setdefault(section.value, []).append(classes()[kind.id])
    return found


UNTYPED = {("data", "ood"), ("dynamics", "downstream"), ("dynamics", "looked"), ("atlas", "looked"),
           ("atlas", "params"), ("publish", "tracking")}
"""Stage, section: mappings that are no settings of one class; params is the study itself, for its published tables."""


def asked_of(study: Study) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Folder in settings, item and content of every settings file."""
    for item in plan_of(study):
        if item.asked is not None:
            yield item.folder, item.key, item.asked
    for stage, asked in last_settings(study).items():
        yield stage, stage, asked


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_item_has_whole_settings(path: Path, tmp_path: Path) -> None:
    layout, study = Layout(tmp_path, tmp_path), load_study(path)
    for folder in ("pipelines", "src/finetrace"):
        (tmp_path / folder).mkdir(parents=True)
    write_settings(layout, study)
    files = set(times(layout))
    for folder, key, asked in asked_of(study):
        name = f"{folder}/{key}.json"
        content = json.loads((layout.settings / name).read_text("utf-8"))
        assert content == json.loads(json.dumps(asked)) and (folder == "publish"
                                                             or content["study_seed"] == study.study.seed)
        files.discard(name)
        known = read_by(folder.replace("-", "_"))
        for section, value in content.items():
            if not isinstance(value, dict) or (folder, section) in UNTYPED:
                continue
            kinds = known.get(section, [])
            assert kinds, f"{name}: no script reads {section}"
            parsed = [one for kind in kinds if (one := whole(kind, value, f"{name}: {section}")) is not None]
            assert parsed, f"{name}: {section} is read as {kinds}, and is none of these with all values written out"
    assert not files, "no two items share a file, and nobody else has one"


ELSEWHERE = {"TaskSettings": {"ood"}, "MethodSettings": {"train", "by_task"}}
"""Class of settings -> keys that are not in its section: they stand beside it, resolved."""


def whole(kind: Any, value: dict[str, Any], where: str) -> Any:
    """Settings of a class, or None where the value is not one with all its values written out."""
    try:
        parsed = parse(kind, value, where)
    except FinetraceError:
        return None
    plain = json.loads(json.dumps(written(parsed)))
    return parsed if {k: v for k, v in plain.items() if k not in ELSEWHERE.get(kind.__name__, ())} == value else None


# --- every study: dvc.yaml


def script_of(stage: str) -> str:
    """The script in the command of a stage."""
    command = stanza(stage)["cmd"]
    found = re.match(r"python pipelines/(\w+)\.py", command)
    assert found, command
    return found[1]


def stanza(stage: str) -> dict[str, Any]:
    return DVC[stage].get("do", DVC[stage])


def test_the_stages_with_items_are_those_of_the_plan() -> None:
    with_items = {name for name, stage in DVC.items() if "foreach" in stage}
    assert with_items == set(STAGES) and set(DVC) - with_items == {*LAST, *MAKING}
    for name in with_items:
        assert DVC[name]["foreach"] == f"${{plan.{name}}}"


@pytest.mark.parametrize("stage", [name for name in DVC if name not in ("inputs", *MAKING)])
def test_a_stage_depends_on_its_settings_and_its_code(stage: str) -> None:
    deps, script = stanza(stage)["deps"], script_of(stage)
    folder = OF_SCRIPT.get(stage, stage)
    assert script == folder.replace("-", "_")
    mine = f"settings/{folder}/{stage if stage in LAST else '${key}'}.json"
    assert [dep for dep in deps if dep.startswith("settings/")] == [mine, f"settings/code/{script}.json"]
    assert not {"params.yaml", "plan.yaml", "src", "src/finetrace", "pipelines"} & set(deps)
    assert stanza(stage)["cmd"] == f"python pipelines/{script}.py" + ("" if stage in LAST else " ${key}")


def expanded(item: Item, part: str) -> list[str]:
    """Dependencies or outputs of an item, as DVC writes them out."""
    found = []
    for path in stanza(item.stage)[part]:
        path = path.replace("${key}", item.key)
        for name in re.findall(r"\$\{item\.([\w-]+)\}", path):
            assert name in item.paths, f"{item.stage}@{item.key}: {path}"
            path = path.replace(f"${{item.{name}}}", item.paths[name])
        assert "$" not in path
        found.append(path)
    return found


def within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_what_items_read_is_what_others_write(path: Path) -> None:
    items = plan_of(load_study(path))
    outs = {out: item for item in items for out in expanded(item, "outs")}
    assert len(outs) == sum(len(expanded(item, "outs")) for item in items), "two items write one folder"
    folders = [out for out in outs if not out.startswith("inputs/")]
    assert not [(a, b) for a in folders for b in folders if a != b and within(a, b)], "an output within another"
    made = {*outs, "data/world", "settings", "atlas"}
    names = {Path(out).parts[0] for out in outs} | {"settings"}
    for item in items:
        for name in re.findall(r"\$\{item\.([\w-]+)\}", stanza(item.stage)["cmd"]):
            assert name in item.paths
        for dep in expanded(item, "deps"):
            theirs = dep in item.paths.values() and item.stage != "inputs"  # files of the user
            found = any(within(dep, out) or within(out, dep) for out in made)
            assert found or (theirs and Path(dep).parts[0] not in names), f"{item.stage}@{item.key} reads {dep}"


def test_the_plan_comes_before_all() -> None:
    assert {"params.yaml", "src/finetrace/study", "src/finetrace/config"} <= set(DVC["plan"]["deps"])
    assert {"plan.yaml", "params.yaml", "src/finetrace", "pipelines",
            "requirements.lock"} <= set(DVC["settings"]["deps"])
    assert DVC["settings"]["outs"] == ["settings"]
