"""A reader of the atlas: Chromium without a network, on a page that lies on disk."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd
import pytest
from tests.atlas_study import make_atlas, make_study

from finetrace.atlas.bundle import inside
from finetrace.layout import Layout

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

VIEWS = {"overview": "Overview", "timeline": "Timeline", "layers": "Layers", "pair": "A | B", "leads": "Who leads",
         "taught": "Who taught", "tables": "Tables", "figures": "Figures"}
"""In the address -> as its link says."""
LINES = """label => [...label.querySelectorAll('text')].flatMap(text => text.querySelector('.line')
    ? [...text.querySelectorAll('.line')] : [text]).map(line => line.textContent).join('\\n')"""
"""The lines of the label of a point."""
INSTALL = ("no browser for these tests. Debian: apt-get install chromium; elsewhere: .venv/bin/playwright install "
           "chromium, or name one: CHROMIUM=/path/to/chrome make test-browser")


def find_chromium() -> str | None:
    """CHROMIUM, one on PATH, or Playwright's own; None without any."""
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    found = [path for name in names if name and (path := shutil.which(name))]
    if found:
        return found[0]
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).is_file() else None


@dataclass
class Reader:
    """A tab with a page of the atlas. problems: what the console calls errors;  requests: addresses that are no file
    of the page."""

    page: "Page"
    index: Path
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, view: str, **asked: str | list[str]) -> "Reader":
        """Open a view by its address, in a tab that has the page by the address alone. asked: of the address; a list
        gives a name several times."""
        pairs = [(name, one) for name, value in asked.items() for one in ([value] if isinstance(value, str) else value)]
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
        address = f"{self.index.as_uri()}#{view}" + (f"?{query}" if query else "")
        if self.page.url.partition("#")[0] == self.index.as_uri() and self.page.url != address:
            self.page.keyboard.press("Escape")  # a dialog that is open
            self.redraws(lambda: self.page.goto(address))
            return self
        self.page.goto("about:blank")
        self.page.goto(address)
        self.wait()
        return self

    def wait(self) -> None:
        self.page.wait_for_function("document.documentElement.dataset.ready && !document.querySelector('[aria-busy]')"
                                    " && document.querySelectorAll('main').length === 1")

    def redraws(self, action: Callable[[], Any]) -> None:
        """Do something that shows the view anew, and wait for it."""
        self.page.evaluate("document.getElementById('main').dataset.old = 'yes'")
        action()
        self.page.wait_for_function("!document.querySelector('[data-old]')")
        self.wait()

    def choose(self, label: str, option: str, nth: int = 0) -> None:
        """Choose an option, by its text, of the choice with this label."""
        box = self.page.locator("label.choice", has=self.page.locator(f"span:text-is('{label}')")).nth(nth)
        self.redraws(lambda: box.locator("select").select_option(label=option))

    def table(self, caption: str) -> list[list[str]]:
        """Cells of a table of the view, as texts. caption: part of it."""
        regions = self.page.locator(f'#main .wide[aria-label*="{caption}"]')
        return regions.first.evaluate("e => [...e.querySelectorAll('tbody tr')].map("
                                      "row => [...row.cells].map(cell => cell.textContent))")

    def charts(self) -> list[list[dict[str, Any]]]:
        """The traces of every chart of the view."""
        return self.page.evaluate(
            "[...document.querySelectorAll('.plot')].map(box => box.data.map(({type, name, x, y, z}) => "
            "({type, name, x: x && [...x], y: y && [...y], z: z && [...z]})))")

    def point(self, chart: int, x: Any, y: Any) -> tuple[float, float]:
        """Where a point of a chart is on the screen; the chart is scrolled there. x, y: on its axes, of
        categories their numbers."""
        box = self.page.locator(".plot").nth(chart)
        box.scroll_into_view_if_needed()
        return tuple(box.evaluate("""(box, [x, y]) => {
            box.scrollIntoView({block: 'center'});
            const {xaxis, yaxis} = box._fullLayout, at = box.getBoundingClientRect();
            return [at.left + xaxis._offset + xaxis.d2p(x), at.top + yaxis._offset + yaxis.d2p(y)]}""", [x, y]))

    def hover(self, chart: int, x: Any, y: Any) -> str:
        """The text that Plotly shows where the mouse rests on a point."""
        label = self.page.locator(".plot").nth(chart).locator(".hoverlayer .hovertext")
        for _ in range(10):  # a chart that is being fitted to its legend moves away from under the mouse
            left, top = self.point(chart, x, y)
            self.page.mouse.move(left + 40, top)
            self.page.mouse.move(left, top, steps=4)
            self.page.wait_for_timeout(200)
            if label.count():
                break
        label.first.wait_for()
        return str(label.first.evaluate(LINES))


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("no browser: test_there_is_a_browser says what to do")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:  # a root has no sandbox
        opened = playwright.chromium.launch(executable_path=executable, chromium_sandbox=os.geteuid() != 0)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The made study, to be read only."""
    return make_study(tmp_path_factory.mktemp("atlas") / "study")


@pytest.fixture(scope="session")
def beside(layout: Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the same study with all parts in files beside it."""
    copy = tmp_path_factory.mktemp("beside") / "study"
    shutil.copytree(layout.root, copy)
    shutil.rmtree(copy / "atlas")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetrace.atlas.site.inside", lambda parts: inside(parts, 0))
        make_atlas(Layout(copy, copy))
    return copy / "atlas/index.html"


@pytest.fixture(scope="session")
def frame(layout: Layout) -> pd.DataFrame:
    """The one table, as the dialog about a number tells to read it."""
    return pd.read_parquet(layout.atlas / "table.parquet")


Opened = Callable[..., Reader]


@pytest.fixture
def opened(browser: "Browser") -> Iterator[Opened]:
    """Opens a page of the atlas in a tab of its own; at the end it has met no problem, unless it `fails`."""
    readers: list[tuple[Reader, bool]] = []

    def open_tab(index: Path, *, fails: bool = False, **options: Any) -> Reader:
        readers.append((tab(browser, index, **options), fails))
        return readers[-1][0]

    yield open_tab
    for reader, fails in readers:
        reader.page.context.close()
        assert not reader.requests and (fails or not reader.problems), reader


@pytest.fixture(scope="session")
def shared_reader(browser: "Browser", layout: Layout) -> Reader:
    return tab(browser, layout.atlas / "index.html")


@pytest.fixture
def reader(shared_reader: Reader) -> Iterator[Reader]:
    """The tab that tests share, on the made study's page; at the end it has met no problem."""
    yield shared_reader
    problems, shared_reader.problems = shared_reader.problems, []
    assert not problems and not shared_reader.requests


def tab(browser: "Browser", index: Path, **options: Any) -> Reader:
    """A tab without a network that notes problems."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "offline": True} | options)
    page = context.new_page()
    reader = Reader(page, index)
    page.on("console", lambda said: reader.problems.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: reader.problems.append(str(error)))
    page.on("dialog", lambda dialog: (reader.problems.append(f"alert: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda asked: reader.requests.append(asked.url)
            if asked.url.split(":")[0] not in ("file", "blob", "data", "about") else None)
    return reader
