"""The pages of the atlas as HTML: plain, offline, sortable. What they look like lies in templates/."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

PACKAGE_DATA = ("templates",)
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Listing:
    """One table of the overview: a row per trajectory.

    header: (column, explanation);  rows: one text per column, the trajectory's name first;  links: address of each
    row's figures.
    """

    heading: str
    header: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]
    links: Sequence[str]

    def lines(self) -> Iterator[tuple[str, Sequence[str], str]]:
        """Name, other cells, and link of every row."""
        for (name, *cells), link in zip(self.rows, self.links, strict=True):
            yield name, cells, link


class Section(NamedTuple):
    """A lens on a trajectory's page. text: a line of text;  figures: their addresses."""

    heading: str
    text: str
    figures: Sequence[str]


def page(title: str, intro: str, listings: Sequence[Listing], figures: Sequence[tuple[str, str]]) -> str:
    """The overview; figures: (address relative to the page, caption). Listings without rows are left out."""
    shown = [listing for listing in listings if listing.rows]
    return _render("overview.html", title=title, intro=intro, listings=shown, figures=figures)


def report(title: str, intro: str, home: str, sections: Sequence[Section]) -> str:
    """The page of one trajectory: every figure of every lens. home: address of the overview."""
    return _render("trajectory.html", title=title, intro=intro, home=home, sections=sections)


def _render(template: str, **content: object) -> str:
    return _environment().get_template(template).render(content)


@cache
def _environment() -> Environment:
    """The templates. Every text is escaped, wherever it comes from; a name that nobody gave is an error."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.filters["file_name"] = lambda address: PurePosixPath(address).stem
    return environment
