"""The documents keep their word: links lead somewhere, studies in them are studies, names in them exist."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import finetrace
from finetrace.longtable import SHARED
from finetrace.store.tables import write_table
from finetrace.study import parse_study

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
WIDTH, README_LINES, SMALLEST_LINES = 120, 150, 8


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.*)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(path))
    wrong = []
    for link in (one for one in links if not one.startswith(("http://", "https://"))):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= README_LINES
    assert [line for line in lines if len(line) > WIDTH] == []


def test_the_smallest_study_of_the_readme_is_one() -> None:
    (text,) = blocks(ROOT / "README.md", "yaml")
    assert len(text.splitlines()) <= SMALLEST_LINES
    study = parse_study(yaml.safe_load(text), "README.md")
    assert list(study.trajectories) == ["minilm_reviews_ft_s1"]
    assert len(study.looked) == 7, "README.md says how many lenses look where a study does not say"


def test_the_larger_study_of_the_guide_is_one() -> None:
    study = parse_study(yaml.safe_load(blocks(ROOT / "docs/use.md", "yaml")[0]), "docs/use.md")
    assert len(study.trajectories) == 19
    assert set(study.looked["kernel"]) == {"roberta-base/sst2/ft/s1", "roberta-base/sst2/lora/s1"}


def test_the_questions_to_a_table_have_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = (block for block in blocks(ROOT / "docs/use.md", "python") if "read_long_table" in block)
    places = [(step, layer) for step in (0, 8) for layer in (0, 2)]
    write_table(tmp_path / "outputs/micro-a/micro-sentiment/ft/s1/geometry/table.parquet", {
        "step": [step for step, _ in places], "layer": [layer for _, layer in places],
        "statistic": ["effective_rank"] * 4, "value": [1.0, 2.0, 3.0, 4.0], "low": [0.5] * 4, "high": [9.0] * 4})
    monkeypatch.chdir(tmp_path)
    *start, over_time, over_layers, one_place = code.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(start), names)
    np.testing.assert_array_equal(eval(over_time, names), [[2, 0.5, 9], [4, 0.5, 9]])
    np.testing.assert_array_equal(eval(over_layers, names), [3, 4])
    assert eval(one_place, names)["value"].tolist() == [2]
    section = prose(ROOT / "docs/use.md").split("### The tables")[1].split("###")[0]
    columns = re.findall(r"^\| ((?:`\w+`,? ?)+)\|", section,
                         flags=re.MULTILINE)
    assert set(re.findall(r"\w+", " ".join(columns))) == set(SHARED)


def test_every_study_that_comes_along_is_listed() -> None:
    listed = set(re.findall(r"^\| `([a-z-]+)` \|.*\|.*\|$", (ROOT / "docs/use.md").read_text("utf-8"),
                            flags=re.MULTILINE))
    assert {path.stem for path in (ROOT / "studies").glob("*.yaml")} <= listed


def is_in_the_code(dotted: str) -> bool:
    """Whether `room.module.name` names a module, and what stands in it."""
    folder, parts = ROOT / "src/finetrace", dotted.split(".")
    while parts and (folder / parts[0]).is_dir():
        folder /= parts.pop(0)
    inside = bool(parts) and (folder / f"{parts[0]}.py").is_file()
    text = (folder / f"{parts.pop(0) if inside else '__init__'}.py").read_text("utf-8")
    return all(re.search(rf"\b{name}\b", text) for name in parts)


def test_modules_and_functions_named_in_the_architecture_exist() -> None:
    rooms = "|".join(path.name for path in (ROOT / "src/finetrace").iterdir() if path.is_dir())
    named = re.findall(rf"`(?:finetrace\.)?((?:{rooms})(?:\.\w+)+)", prose(ROOT / "docs/architecture.md"))
    assert len(named) > 30
    assert [name for name in named if not is_in_the_code(name)] == []


def test_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["version"]
    assert finetrace.__version__ == project == cited
