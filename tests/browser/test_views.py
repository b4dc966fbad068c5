"""Every view of the page is reached by link and by address, and an address restores what it was taken from."""

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest
from tests.atlas_study import FT, HOSTILE, LABELS, LP, PRETRAIN, STEPS
from tests.browser.conftest import INSTALL, VIEWS, Opened, Reader, find_chromium

from finetrace.atlas.bundle import study_json
from finetrace.atlas.page import index
from finetrace.layout import Layout

pytestmark = pytest.mark.browser
RANK = "geometry|effective_rank|2|validation||"
QUANTITIES = [RANK, "trajectory|loss|-1|validation||"]


def test_there_is_a_browser() -> None:
    missing = [name for name in ("playwright", "axe_playwright_python") if importlib.util.find_spec(name) is None]
    assert not missing, f"{', '.join(missing)} not installed: make setup"
    assert find_chromium(), INSTALL


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_by_its_address(reader: Reader, view: str) -> None:
    page = reader.open(view).page
    assert page.locator("h1").all_text_contents() == [VIEWS[view]]
    assert page.title() == f"{VIEWS[view]} · finetrace atlas: größer"
    assert page.locator("nav a[aria-current=page]").all_text_contents() == [VIEWS[view]]
    assert page.locator(".problem").count() == 0 and len(page.locator("#main").inner_text()) > 40


def test_all_views_by_their_links(reader: Reader) -> None:
    page = reader.open("overview").page
    assert page.locator("nav a").all_text_contents() == list(VIEWS.values())
    for view, name in [*VIEWS.items(), ("overview", "Overview")]:
        if page.locator("h1").text_content() != name:
            reader.redraws(page.get_by_role("link", name=name, exact=True).click)
        assert page.locator("h1").text_content() == name and f"#{view}" in page.url
    page.go_back()
    page.wait_for_function("document.querySelector('h1').textContent === 'Figures'")


def test_a_wrong_address_shows_the_overview(reader: Reader) -> None:
    assert reader.open("nowhere").page.locator("h1").text_content() == "Overview"
    reader.open("timeline", q="no|such|0|x||", by="nothing", x="nothing", panels="nothing", at="nothing")
    assert reader.page.locator(".plot").count() == 1 and reader.page.locator(".problem").count() == 0
    reader.open("layers", q="geometry|nothing|*|||", a="nothing", b="nothing")
    assert reader.page.locator(".plot").count() >= 3
    reader.open("pair", a="nothing", b="nothing", set="nothing", changed="nothing")
    assert reader.page.locator("#paired").count() == 1


def test_the_address_restores_filter_quantities_axis_and_slider(opened: Opened, layout: Layout) -> None:
    one, other = (opened(layout.atlas / "index.html") for _ in range(2))
    one.open("timeline", q=QUANTITIES)
    one.page.locator("summary", has_text="method").click()
    one.redraws(one.page.get_by_label("ft", exact=True).check)
    one.choose("over", "training examples seen")
    one.choose("a line for", "each training")
    one.choose("split", "test")
    slider = one.page.get_by_role("slider")
    slider.focus()
    slider.press("Home")
    for _ in range(2):
        slider.press("ArrowRight")
    said, values = one.page.locator("output").text_content(), one.table("Values at")
    assert all(row[1] in FT for row in values) and len(values) == 5 and "method=ft" in one.page.url
    other.page.goto(one.page.url)
    other.wait()
    assert other.page.locator("output").text_content() == said and other.table("Values at") == values
    assert other.page.locator("summary", has_text="method").text_content() == "method: ft"
    assert [[trace["x"] for trace in chart] for chart in other.charts()] == [
        [trace["x"] for trace in chart] for chart in one.charts()]


def test_filters_go_along_to_other_views(reader: Reader) -> None:
    page = reader.open("overview", method="lp").page
    assert [row[0] for row in reader.table("fine-tunings")] == [LP]
    reader.redraws(page.get_by_role("link", name="Timeline").click)
    assert {row[1] for row in reader.table("Values at")} == {f"micro-a/{LP.split('/')[1]}/lp"}
    page.locator("summary", has_text="method").click()
    reader.redraws(page.get_by_role("button", name="all", exact=True).click)
    assert "method=" not in page.url and len(reader.table("Values at")) == 3


def test_names_with_every_sign_are_restored(opened: Opened, layout: Layout, frame: pd.DataFrame) -> None:
    """A label with the sign that parts an address, a share sign, and what would be HTML."""
    one, other = (opened(layout.atlas / "index.html") for _ in range(2))
    one.open("timeline", q=RANK, by="name")
    one.choose("label", LABELS[1])
    other.page.goto(one.page.url)
    other.wait()
    rows = frame[(frame.quantity == "effective_rank") & (frame.layer == 2) & (frame.split == "validation")
                 & (frame.label == LABELS[1]) & (frame.place == FT[0])]
    for reader in (one, other):
        traces = {trace["name"]: trace["y"] for trace in reader.charts()[0] if trace["name"] in FT}
        assert traces[FT[0]] == pytest.approx(rows.value.tolist(), rel=1e-6)
        assert LABELS[1] in reader.page.locator("figcaption").first.text_content()


def test_texts_of_the_study_stay_texts(reader: Reader) -> None:
    """The dialog of an alert would be a problem that the reader has at the end."""
    scripts = "document.querySelectorAll('script').length"
    before = reader.open("timeline", q=RANK).page.evaluate(scripts)
    reader.choose("label", "each of them")
    assert HOSTILE in " ".join(row[1] for row in reader.table("Values at"))
    reader.open("timeline", q="calibration|ece|-1|validation||bins=10 note=" + HOSTILE)
    assert HOSTILE in " ".join(reader.page.locator("option").all_text_contents())
    reader.open("pair", a=FT[0], b=FT[1])
    assert HOSTILE in reader.page.locator("#main").text_content()
    assert reader.page.evaluate(scripts) == before and reader.page.locator("#main img").count() == 0


def test_colours_follow_the_reader(opened: Opened, layout: Layout) -> None:
    dark = opened(layout.atlas / "index.html", color_scheme="dark").open("timeline")
    ground = "getComputedStyle(document.body).backgroundColor"
    before = dark.page.evaluate(ground)
    dark.redraws(dark.page.get_by_role("button", name="light or dark").click)
    after = dark.page.evaluate(ground)
    assert before == "rgb(20, 24, 28)" and after == "rgb(255, 255, 255)"


def test_a_study_without_anything_says_so(opened: Opened, tmp_path: Path) -> None:
    empty = {name: [] for name in ("lenses", "answers", "influence", "courses", "figures", "reports")}
    study = study_json("t", "Nothing.", [], [], {}, beside={}, **empty)
    (tmp_path / "index.html").write_text(index("t", "Nothing.", study, [], []), "utf-8")
    reader = opened(tmp_path / "index.html")
    for view in VIEWS:
        page = reader.open(view).page
        assert page.locator(".problem").count() == 0 and page.locator(".note").count() >= 1, view


def test_without_javascript_there_are_links(opened: Opened, layout: Layout) -> None:
    page = opened(layout.atlas / "index.html", java_script_enabled=False).page
    page.goto((layout.atlas / "index.html").as_uri())
    assert page.locator("noscript a").count() == 5 or "needs JavaScript" in page.content()


def test_it_knows_the_checkpoints_of_the_study(reader: Reader) -> None:
    page = reader.open("timeline", q=RANK).page
    assert page.get_by_role("slider").get_attribute("max") == str(len(STEPS) - 1)
    text = page.locator("#study").text_content()
    assert json.loads(text)["places"][-1]["name"] == PRETRAIN


OVERLAPS = """boxes => boxes.flatMap(box => {
    const legend = box.querySelector('g.legend .bg'), title = box.querySelector('.xtitle');
    if (!legend || !title) return [];
    return [title.getBoundingClientRect().bottom - legend.getBoundingClientRect().top];
})"""
"""Of each plot: by how much its legend begins above the end of the x axis's title."""


@pytest.mark.parametrize("width", [390, 1280])
def test_legends_lie_below_the_titles_of_axes(opened: Opened, layout: Layout, width: int) -> None:
    """Also on a narrow page, where a legend has many lines, and in a chart of one row; the page is as wide as asked."""
    reader = opened(layout.atlas / "index.html")
    reader.page.set_viewport_size({"width": width, "height": 900})
    seen = 0
    for view in ("overview", "timeline", "leads", "taught"):
        reader.open(view)
        reader.page.wait_for_timeout(400)  # drawn again when its height is seen
        found = reader.page.locator(".plot").evaluate_all(OVERLAPS)
        assert all(overlap <= 1 for overlap in found), (view, found)
        assert reader.page.evaluate("document.documentElement.scrollWidth") <= width, view
        seen += len(found)
    assert seen >= 4

