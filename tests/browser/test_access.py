"""The page is for everyone: by keyboard, by screen reader, on a phone, on paper, in light and in dark."""

from typing import Any

import pandas as pd
import pytest
from tests.atlas_study import FT
from tests.browser.conftest import VIEWS, Opened, Reader

from finetrace.layout import Layout

pytestmark = pytest.mark.browser
RANK = "geometry|effective_rank|2|validation||"
CONTROLS = """[...document.querySelectorAll('a[href], button, select, input, summary, [tabindex="0"]')].filter(
    e => e.checkVisibility({visibilityProperty: true}) && !e.closest('dialog'))"""
SHARED: dict[str, Any] = {"a": FT[0], "b": FT[1], "q": RANK}
"""Asked of every view; it takes what it knows."""


@pytest.mark.parametrize("view", VIEWS)
def test_tab_reaches_every_control(reader: Reader, view: str) -> None:
    page = reader.open(view, **SHARED).page
    page.evaluate("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    wanted = page.evaluate(f"{CONTROLS}.forEach((e, i) => e.dataset.control = i) ?? {CONTROLS}.length")
    page.locator("body").evaluate("e => { e.tabIndex = -1; e.focus(); e.removeAttribute('tabindex') }")
    met = set()
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        met.add(page.evaluate("document.activeElement.dataset.control"))
    missed = set(map(str, range(wanted))) - met
    assert wanted >= 9 and not missed, page.evaluate(
        "missed => missed.map(i => document.querySelector(`[data-control='${i}']`).outerHTML)", list(missed))


def test_the_first_tab_leads_to_the_content(reader: Reader) -> None:
    page = reader.open("tables").page
    reader.page.locator("body").evaluate("e => { e.tabIndex = -1; e.focus(); e.removeAttribute('tabindex') }")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main" and "#tables" in page.url


def focused(reader: Reader) -> str:
    return str(reader.page.evaluate("document.activeElement.innerText || document.activeElement.parentNode.innerText"))


def test_a_number_by_enter_and_back_by_escape(reader: Reader) -> None:
    page = reader.open("overview").page
    number = page.locator("td .plain").first
    text = number.text_content()
    for key in ("Enter", "Space"):
        number.focus()
        page.keyboard.press(key)
        page.locator("dialog[open]").wait_for()
        assert page.evaluate("!!document.activeElement.closest('dialog')")
        page.keyboard.press("Escape")
        page.locator("dialog[open]").wait_for(state="hidden")
        assert focused(reader) == text


def test_headings_sort_by_key(reader: Reader) -> None:
    page = reader.open("overview", rows="place").page
    page.locator("thead button").nth(1).focus()
    for key, way in (("Enter", "ascending"), ("Space", "descending")):
        page.keyboard.press(key)
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == way


def test_two_filters_one_after_the_other_by_key(reader: Reader) -> None:
    """The view is drawn anew after each; the list of choices stays open, and the focus where it was."""
    page = reader.open("overview", rows="place").page
    page.locator("summary", has_text="seed").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    reader.redraws(lambda: page.keyboard.press("Space"))
    assert focused(reader) == "1" and page.locator("details[open]").count() == 1
    page.keyboard.press("Tab")
    reader.redraws(lambda: page.keyboard.press("Space"))
    assert focused(reader) == "2"
    assert page.locator("summary", has_text="seed").text_content() == "seed: 1, 2"
    assert [row[0][-2:] for row in reader.table("fine-tunings")] == ["s1", "s2", "s1"]


def test_the_focus_stays_when_a_view_is_drawn_anew(reader: Reader) -> None:
    page = reader.open("timeline", q=RANK).page
    page.locator("label.choice", has_text="panels").locator("select").focus()
    reader.redraws(lambda: page.keyboard.press("ArrowDown"))
    assert page.evaluate("document.activeElement.value") == "apart"
    page.get_by_role("link", name="Layers").focus()
    reader.redraws(lambda: page.keyboard.press("Enter"))
    assert focused(reader) == "Layers"
    reader.open("pair", a=FT[0], b=FT[1])
    page.get_by_role("button", name="swap").focus()
    reader.redraws(lambda: page.keyboard.press("Enter"))
    assert focused(reader) == "swap"


def test_the_slider_by_keys(reader: Reader) -> None:
    page = reader.open("timeline", q=RANK).page
    page.get_by_role("slider").focus()
    for key, step in (("Home", 0), ("ArrowRight", 10), ("End", 40), ("ArrowLeft", 20)):
        page.keyboard.press(key)
        assert page.locator("output").text_content() == f"step {step}"
        assert page.get_by_role("slider").get_attribute("aria-valuetext") == f"step {step}"


def test_cells_of_a_heat_map_by_keys(reader: Reader, frame: pd.DataFrame) -> None:
    page = reader.open("layers", q=RANK, a=FT[0], b=FT[1]).page
    heat = page.get_by_role("application").nth(1)
    heat.focus()
    rows = frame[(frame.place == FT[1]) & (frame.quantity == "effective_rank") & (frame.split == "validation")
                 & (frame.label == "")]
    spoken = page.locator(".keys + [role=status]").nth(1)
    for keys, layer, step in (((), 2, 40), (("ArrowLeft", "ArrowDown"), 1, 20), (("ArrowDown",) * 3, 0, 20),
                              (("Home", "PageUp"), 2, 0), (("ArrowRight",), 2, 10)):
        for key in keys:
            page.keyboard.press(key)
        assert spoken.text_content().startswith(f"layer {layer}, step {step}: ")
    frame_at = page.locator(".keys .cell").nth(1).bounding_box()
    middle = frame_at["x"] + frame_at["width"] / 2, frame_at["y"] + frame_at["height"] / 2
    assert middle == pytest.approx(reader.point(1, 1, 2), abs=2)
    page.keyboard.press("Enter")
    said = page.locator("dialog[open]").inner_text()
    row = rows[(rows.layer == 2) & (rows.step == 10)]
    assert f"iloc[{row.index[0]}]" in said
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "application"
    page.get_by_role("application").nth(2).focus()  # B - A: nothing to open
    page.keyboard.press("Enter")
    assert page.locator("dialog[open]").count() == 0
    page.get_by_role("slider").focus()
    assert page.locator(".cell:visible").count() == 0


def test_the_buttons_of_a_chart_by_keys(reader: Reader) -> None:
    page = reader.open("timeline", q=RANK).page
    titles = page.locator(".plot").first.locator(".modebar-btn").evaluate_all("all => all.map(e => e.ariaLabel)")
    assert "Download plot" in titles and not [title for title in titles if "hare" in title], "nothing leaves the page"
    button = page.locator(".plot").first.get_by_role("button", name="Zoom in")
    button.focus()
    page.wait_for_function("getComputedStyle(document.activeElement.closest('.modebar-group')).opacity === '1'")
    width = "(([a, b]) => b - a)(document.querySelector('.plot').layout.xaxis.range)"
    before = page.evaluate(width)
    page.keyboard.press("Enter")
    page.wait_for_function(f"{width} < {before}")
    page.locator(".plot").first.get_by_role("button", name="Reset axes").focus()
    page.keyboard.press("Space")
    page.wait_for_function(f"Math.abs({width} - {before}) < 1e-6")


def violations(reader: Reader) -> list[str]:
    """Serious and critical ones that axe-core finds."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(reader.page).response["violations"]
    return [f"{one['id']}: {node['html'][:200]} {node['failureSummary']}" for one in found
            if one["impact"] in ("serious", "critical") for node in one["nodes"][:3]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(opened: Opened, layout: Layout, scheme: str) -> None:
    reader = opened(layout.atlas / "index.html", color_scheme=scheme)
    found = {view: violations(reader.open(view, **SHARED)) for view in VIEWS}
    reader.open("timeline", **SHARED)
    reader.page.locator("td .plain").first.click()
    found["the dialog"] = violations(reader)
    reader.page.keyboard.press("Escape")
    reader.page.locator("summary").first.click()
    found["an open filter"] = violations(reader)
    reader.page.locator("#main").evaluate("e => e.append(document.createElement('button'))")
    assert len(violations(reader)) > len(found["an open filter"]), "it looks: a button without a name"
    assert not {view: texts for view, texts in found.items() if texts}


def test_charts_have_captions_and_pictures_texts(reader: Reader) -> None:
    for view in VIEWS:
        page = reader.open(view, **SHARED).page
        assert page.locator("figure:not(:has(figcaption:not(:empty)))").count() == 0, view
        assert page.locator("img:not([alt])").count() == 0, view


def test_nothing_is_wider_than_a_phone(opened: Opened, layout: Layout) -> None:
    reader = opened(layout.atlas / "index.html", viewport={"width": 400, "height": 800}, has_touch=True)
    for view in VIEWS:
        page = reader.open(view, **SHARED).page
        filtered = view in ("overview", "timeline", "layers")
        for filter_ in page.locator("summary").all() if filtered else []:
            filter_.click()
            assert page.evaluate("document.documentElement.scrollWidth") <= 400, f"{view}: {filter_.text_content()}"
            filter_.click()
        wide = page.evaluate("[...document.querySelectorAll('main *')].filter(e => !e.closest('.wide, svg') && "
                             "e.getBoundingClientRect().right > 401).map(e => e.outerHTML.slice(0, 120))")
        assert page.evaluate("document.documentElement.scrollWidth") <= 400 and not wide, f"{view}: {wide[:3]}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_prints(opened: Opened, layout: Layout, scheme: str) -> None:
    """In dark letters, whatever the screen's colours are: browsers leave the ground of a page out."""
    reader = opened(layout.atlas / "index.html", color_scheme=scheme)
    for view in ("overview", "timeline", "layers"):
        page = reader.open(view, **SHARED).page
        page.emulate_media(media="print")
        assert not page.locator("header").is_visible() and page.locator("h1").is_visible()
        assert page.locator(".plot svg").first.is_visible() and page.locator(".bar").first.is_visible()
        assert not page.locator("main > button, .bar button, .slider, .modebar").filter(visible=True).count()
        drawn = "getComputedStyle(document.querySelector('.plot svg text')).fill"
        assert page.evaluate("getComputedStyle(document.body).color") == page.evaluate(drawn) == "rgb(29, 35, 41)"
        assert page.pdf(format="A4")[:5] == b"%PDF-"
        page.emulate_media(media="screen")
