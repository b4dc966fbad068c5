"""The pages of the atlas as HTML that works from disk, without a network. What they look like lies in templates/."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from finetrace.atlas.bundle import Part

PACKAGE_DATA = ("templates",)
TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("core", "choose", "overview", "timeline", "layers", "pair", "leads", "taught", "tables", "main")
"""Of index.html, in their order; one scope holds them all."""


class Section(NamedTuple):
    """A lens on a trajectory's page. text: a line of text;  figures: their addresses."""

    heading: str
    text: str
    figures: Sequence[str]


def index(title: str, intro: str, study: str, parts: Iterable[Part], pages: Sequence[tuple[str, str]]) -> str:
    """The interactive page, with everything that it needs in it.

    study: see `finetrace.atlas.bundle.study_json`;  parts: those that lie in the page;  pages: name and address of
    every trajectory's page, for readers without JavaScript.
    """
    scripts = [Markup(_safe((TEMPLATES / f"{name}.js").read_text("utf-8"))) for name in SCRIPTS]
    return _render("index.html", title=title, intro=intro, study=Markup(study), parts=parts, pages=pages,
                   css=_css(), scripts=scripts,
                   plotly=Markup(_safe(_plotly())))


def report(title: str, intro: str, home: str, sections: Sequence[Section]) -> str:
    """The page of one trajectory: every figure of every lens, which stands at #LENS. home: address of the overview."""
    return _render("trajectory.html", title=title, intro=intro, home=home, sections=sections, css=_css())


def markdown(text: str) -> str:
    """Markdown with tables as HTML; HTML in it stays text."""
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))


def _css() -> Markup:
    return Markup((TEMPLATES / "atlas.css").read_text("utf-8"))


def _plotly() -> str:
    """plotly.js, of its Python package: charts with hover, zoom and export, in one file under the MIT licence."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _safe(script: str) -> str:
    """A script that may stand in a page: nothing in its strings ends it."""
    return re.sub(r"</(?=script)", r"<\\/", script, flags=re.IGNORECASE)


def _render(template: str, **content: object) -> str:
    return _environment().get_template(template).render(content)


@cache
def _environment() -> Environment:
    """The templates. Every text is escaped, wherever it comes from; a name that nobody gave is an error."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters["file_name"] = lambda address: PurePosixPath(address).stem
    return environment
