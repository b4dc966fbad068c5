"""Parts that lie in files beside the page are read when they are needed; one that is not there is named."""

import re
import shutil
from pathlib import Path

import pytest
from tests.atlas_study import FT
from tests.browser.conftest import VIEWS, Opened, Reader

from finetrace.layout import Layout

pytestmark = pytest.mark.browser
RANK = "geometry|effective_rank|2|validation||"
ASKED = {"overview": {}, "timeline": {"q": RANK}, "layers": {"q": RANK}, "pair": {"a": FT[0], "b": FT[1]}, "leads": {}}


def shown(reader: Reader, view: str) -> tuple[str, list]:
    reader.open(view, **ASKED[view])
    return reader.page.locator("#main").inner_text(), reader.charts()


def test_the_page_is_the_same_with_parts_beside_it(opened: Opened, layout: Layout, beside: Path) -> None:
    one, other = opened(layout.atlas / "index.html"), opened(beside)
    assert 'id="part:' not in beside.read_text("utf-8") and len(list((beside.parent / "parts").iterdir())) >= 6
    for view in ASKED:
        assert shown(one, view) == shown(other, view), view


def test_a_part_is_read_when_it_is_needed(opened: Opened, beside: Path) -> None:
    reader, asked = opened(beside), []
    reader.page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    reader.open("overview")
    assert not [name for name in asked if name.endswith(".js")]
    reader.open("timeline", q=RANK)
    assert [name for name in asked if name.endswith(".js")] == ["table-geometry.js"]
    reader.open("layers", q=RANK)
    assert len([name for name in asked if name.endswith(".js")]) == 1, "once"


def test_a_missing_part_is_named(opened: Opened, beside: Path, tmp_path: Path) -> None:
    copy = tmp_path / "atlas"
    shutil.copytree(beside.parent, copy)
    (copy / "parts/table-geometry.js").unlink()
    reader = opened(copy / "index.html", fails=True)
    page = reader.open("timeline", q=RANK).page
    said = page.get_by_role("alert").text_content()
    assert re.fullmatch(r"This cannot be shown: parts/table-geometry\.js is not beside this page: .+", said)
    for view in VIEWS:
        if view not in ("timeline", "layers"):
            assert reader.open(view).page.get_by_role("alert").count() == 0, view
    reader.open("timeline", q="trajectory|loss|-1|validation||")
    assert page.get_by_role("alert").count() == 0 and page.locator(".plot").count() == 2


def test_the_page_alone_still_has_its_overview(opened: Opened, beside: Path, tmp_path: Path) -> None:
    shutil.copy(beside, tmp_path / "index.html")
    reader = opened(tmp_path / "index.html", fails=True)
    assert reader.open("overview").page.get_by_role("alert").count() == 0 and reader.table("fine-tunings")
    assert "copy the whole folder atlas" in reader.open("pair").page.get_by_role("alert").text_content()
