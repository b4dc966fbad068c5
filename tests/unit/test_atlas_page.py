"""The pages of the atlas: what they show, and that no text of a study becomes HTML."""

import json
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from finetrace.atlas import page as pages
from finetrace.atlas.bundle import Part
from finetrace.atlas.page import Section, index, report

HOSTILE = """<script>alert("x")</script> & 'y'"""


class Read(HTMLParser):
    """What a browser makes of a page: elements with their attributes, and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data))

    def of(self, tag: str) -> list[str]:
        return [text for open_tag, text in self.texts if open_tag == tag]

    def attributes(self, tag: str, name: str) -> list[str | None]:
        return [found[name] for element, found in self.elements if element == tag and name in found]


@pytest.fixture(autouse=True)
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """plotly.js has 4 MB."""
    monkeypatch.setattr(pages, "_plotly", lambda: "const Plotly = {};")


def overview(text: str = "x") -> str:
    study = json.dumps({"title": text}).replace("<", "\\u003c")  # as bundle.study_json writes it
    return index(text, text, study, [Part(text, "AAAA")], [(text, text)])


def trajectory(text: str = "x") -> str:
    return report(text, text, text, [Section(text, text, [text, f"../../outputs/a/figures/{text}.b.png"])])


def test_the_overview_holds_study_parts_and_scripts() -> None:
    text = index("finetrace atlas: s", "Two.", '{"a": 1}', [Part("table/hulls", "AAAA"), Part("answers/t", "BBBB")],
                 [("m/t/ft/s1", "runs/a.html")])
    seen = Read(text)
    assert seen.of("title") == ["finetrace atlas: s"] and seen.attributes("html", "lang") == ["en"]
    scripts = [(attrs.get("id"), attrs.get("type")) for tag, attrs in seen.elements if tag == "script"]
    assert scripts == [("study", "application/json"), ("part:table/hulls", "text/plain"),
                       ("part:answers/t", "text/plain"), (None, None), (None, None)]
    held = seen.of("script")
    assert [part.strip() for part in held[:4]] == ['{"a": 1}', "AAAA", "BBBB", "const Plotly = {};"]
    assert all(f"function {name}(" in held[4] for name in ("unpack", "timeline", "layers", "mcnemar", "render"))
    assert "--ground" in seen.of("style")[0]


def test_without_javascript_it_leads_to_the_trajectories() -> None:
    seen = Read(index("t", "Two.", "{}", [], [("m/t/ft/s1", "runs/a.html")]))
    assert "runs/a.html" in seen.attributes("a", "href") and "m/t/ft/s1" in seen.of("a")
    assert any("Two." in text and "needs JavaScript" in text for text in seen.of("p"))


def test_it_asks_the_network_for_nothing() -> None:
    seen = Read(overview())
    assert not [tag for tag, attrs in seen.elements if tag in ("link", "iframe") or "src" in attrs]
    assert "@import" not in overview() and "url(" not in seen.of("style")[0]


def test_the_charts_are_those_of_the_installed_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    text = index("t", "i", "{}", [], [])
    assert "Plotly" in text and len(text) > 1_000_000
    assert len([tag for tag, _ in Read(text).elements if tag == "script"]) == 3, "nothing in it ends its script"


@pytest.mark.parametrize("text", ["</script>", "</SCRIPT >", "a</scRipt"])
def test_a_script_does_not_end_itself(text: str) -> None:
    assert "</script" not in pages._safe(text).lower() and pages._safe(text).replace("<\\/", "</") == text
    assert pages._safe("a < b </scr") == "a < b </scr"


def test_markdown_of_reports() -> None:
    html = pages.markdown(f"| a | b |\n|---|--:|\n| {HOSTILE} | 1 |\n")
    seen = Read(html)
    assert {tag for tag, _ in seen.elements} == {"table", "thead", "tbody", "tr", "th", "td"}
    assert "".join(seen.of("td")) == HOSTILE + "1"


def test_a_trajectory_shows_the_figures_of_its_lenses() -> None:
    figures = ["../../outputs/a/hulls/figures/clusters.png", "../../outputs/a/hulls/figures/v1.2.png"]
    seen = Read(report("a", "Intro.", "../index.html", [Section("hulls", "outputs/a/hulls", figures)]))
    assert seen.of("h1") == ["a"] and seen.of("h2") == seen.attributes("h2", "id") == ["hulls"]
    assert seen.of("p") == ["Intro.", "outputs/a/hulls"]
    assert seen.attributes("a", "href") == ["../index.html"] and seen.attributes("img", "src") == figures
    assert seen.attributes("img", "alt") == ["clusters", "v1.2"]


@pytest.mark.parametrize("make", [overview, trajectory])
def test_hostile_names_stay_text(make) -> None:
    plain, hostile = Read(make("x")), Read(make(HOSTILE))
    assert HOSTILE not in make(HOSTILE)
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]  # no element more
    assert "".join(hostile.of("title")) == HOSTILE
    names = {"/".join(sorted(found)) for _, found in hostile.elements}
    assert names == {"/".join(sorted(found)) for _, found in plain.elements}  # nor an attribute
    assert HOSTILE in hostile.attributes("a", "href")


def test_templates_are_part_of_the_package_and_of_the_fingerprint() -> None:
    root = Path(__file__).parents[2]
    declared = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    packed = {path for pattern in declared["finetrace"] for path in pages.TEMPLATES.parents[1].glob(pattern)}
    assert set(pages.TEMPLATES.iterdir()) <= packed and (pages.TEMPLATES.name,) == pages.PACKAGE_DATA
    scripts = {path.stem for path in pages.TEMPLATES.glob("*.js")}
    assert scripts == set(pages.SCRIPTS), "a script that the page leaves out"
