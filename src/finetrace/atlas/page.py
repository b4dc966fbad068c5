"""The atlas as one HTML page: plain, offline, sortable."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:90rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.2rem;margin-top:2.2rem}
table{border-collapse:collapse;font-size:13px;width:100%}th,td{padding:.3rem .55rem;text-align:right;border-bottom:1px solid #ddd}
th{cursor:pointer;background:#f4f4f4;position:sticky;top:0;vertical-align:bottom}
th:first-child,td:first-child{text-align:left;white-space:nowrap}.wide{overflow-x:auto}td{font-variant-numeric:tabular-nums}
figure{margin:1rem 0}img{max-width:100%;height:auto}figcaption{color:#555;font-size:13px}.note{color:#555;font-size:13px}
"""
SORT = """
document.querySelectorAll('th').forEach(th=>th.onclick=()=>{const i=th.cellIndex;const body=th.closest('table').tBodies[0];
const down=th.dataset.down=th.dataset.down==='1'?'0':'1';const value=r=>{const t=r.cells[i].textContent;
return isNaN(parseFloat(t))?t:parseFloat(t)};[...body.rows].sort((a,b)=>{const x=value(a),y=value(b);
return (x<y?-1:x>y?1:0)*(down==='1'?-1:1)}).forEach(r=>body.append(r))});
"""


@dataclass(frozen=True)
class Listing:
    """One table of the page: a row per trajectory.

    header: (column, explanation);  rows: one text per column;  links: address of each row's figures.
    """

    heading: str
    header: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]
    links: Sequence[str]


class Section(NamedTuple):
    """A lens on a trajectory's page. text: a line of text;  figures: their addresses."""

    heading: str
    text: str
    figures: Sequence[str]


def report(title: str, intro: str, home: str, sections: Sequence[Section]) -> str:
    """The page of one trajectory: every figure of every lens. home: address of the atlas."""
    escape = html.escape
    shown = "".join(f"<h2>{escape(heading)}</h2>\n<p class=note>{escape(text)}</p>\n" + "".join(
        f'<figure><img src="{escape(path)}" alt="{escape(path.rsplit("/", 1)[-1].removesuffix(".png"))}"></figure>\n'
        for path in paths) for heading, text, paths in sections)
    return (f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
            f'<p><a href="{escape(home)}">atlas</a></p>\n<h1>{escape(title)}</h1>\n<p>{escape(intro)}</p>\n{shown}</html>\n')


def page(title: str, intro: str, listings: Sequence[Listing], figures: Sequence[tuple[str, str]]) -> str:
    """The whole page; figures: (path relative to the page, caption). Listings without rows are left out."""
    escape = html.escape
    tables = "".join(_table(listing) for listing in listings if listing.rows)
    shown = "".join(f'<figure><img src="{escape(path)}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption>'
                    "</figure>\n" for path, caption in figures)
    return (f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
            f"<h1>{escape(title)}</h1>\n<p>{escape(intro)}</p>\n"
            '<p class="note">Click a heading to sort, a name to see its figures; rest on a heading for its meaning.</p>\n'
            f"{tables}<h2>Figures</h2>\n{shown}<script>{SORT}</script>\n</html>\n")


def _table(listing: Listing) -> str:
    escape = html.escape
    head = "".join(f'<th title="{escape(tip)}">{escape(name)}</th>' for name, tip in listing.header)
    body = "".join("<tr>" + "".join(
        f'<td><a href="{escape(link)}">{escape(cell)}</a></td>' if i == 0 else f"<td>{escape(cell)}</td>"
        for i, cell in enumerate(row)) + "</tr>\n" for row, link in zip(listing.rows, listing.links, strict=True))
    return (f'<h2>{escape(listing.heading)}</h2>\n<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody>'
            "</table></div>\n")
