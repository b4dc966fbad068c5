"""The pages of the atlas: what they show, and that no text of a study becomes HTML."""

from html.parser import HTMLParser
from pathlib import Path

import pytest

from finetrace.atlas import page as pages
from finetrace.atlas.page import Listing, Section, page, report

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


def overview(text: str = "x") -> str:
    table = Listing(text, [("trajectory", "names"), (text, text)], [[text, "0.5"], ["b", text]], [text, "runs/b.html"])
    return page(text, text, [table], [(text, text)])


def trajectory(text: str = "x") -> str:
    return report(text, text, text, [Section(text, text, [text, f"../../outputs/a/figures/{text}.b.png"])])


def test_the_overview_shows_tables_and_figures() -> None:
    table = Listing("Fine-tunings", [("trajectory", "names"), ("steps", "updates")], [["a", "10"], ["b", "–"]],
                    ["runs/a.html", "runs/b.html"])
    empty = Listing("Empty", [("a", "")], [], [])
    seen = Read(page("finetrace atlas: s", "Two.", [table, empty], [("f/a.png", "Scores.")]))
    assert seen.of("title") == seen.of("h1") == ["finetrace atlas: s"]
    assert seen.of("h2") == ["Fine-tunings", "Figures"] and seen.of("th") == ["trajectory", "steps"]
    assert seen.attributes("th", "title") == ["names", "updates"]
    assert seen.of("a") == ["a", "b"] and seen.attributes("a", "href") == ["runs/a.html", "runs/b.html"]
    assert seen.of("td") == ["10", "–"] and seen.of("figcaption") == ["Scores."]
    assert seen.attributes("img", "src") == ["f/a.png"] and seen.attributes("img", "alt") == ["Scores."]
    assert "tBodies" in seen.of("script")[0] and "border-collapse" in seen.of("style")[0]


def test_a_trajectory_shows_the_figures_of_its_lenses() -> None:
    figures = ["../../outputs/a/hulls/figures/clusters.png", "../../outputs/a/hulls/figures/v1.2.png"]
    seen = Read(report("a", "Intro.", "../index.html", [Section("hulls", "outputs/a/hulls", figures)]))
    assert seen.of("h1") == ["a"] and seen.of("h2") == ["hulls"] and seen.of("p") == ["Intro.", "outputs/a/hulls"]
    assert seen.attributes("a", "href") == ["../index.html"] and seen.attributes("img", "src") == figures
    assert seen.attributes("img", "alt") == ["clusters", "v1.2"]


@pytest.mark.parametrize("make", [overview, trajectory])
def test_hostile_names_stay_text(make) -> None:
    plain, hostile = Read(make("x")), Read(make(HOSTILE))
    assert HOSTILE not in make(HOSTILE)
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]  # no element more
    assert {"".join(hostile.of(tag)) for tag in ("title", "h1")} == {HOSTILE}
    names = {"/".join(sorted(found)) for _, found in hostile.elements}
    assert names == {"/".join(sorted(found)) for _, found in plain.elements}  # nor an attribute
    assert HOSTILE in hostile.attributes("img", "src") and HOSTILE in hostile.attributes("a", "href")


def test_templates_are_part_of_the_package_and_of_the_fingerprint() -> None:
    root = Path(__file__).parents[2]
    declared = (root / "pyproject.toml").read_text("utf-8")
    assert "atlas/templates/*.html" in declared and (pages.TEMPLATES.name,) == pages.PACKAGE_DATA
    assert {path.name for path in pages.TEMPLATES.iterdir()} == {"base.html", "overview.html", "trajectory.html"}
