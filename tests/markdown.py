"""Markdown tables as tests compare them."""

import re


def plain(text: str) -> str:
    """The text with one space around every cell of its tables: how wide columns are drawn does not matter."""
    return "\n".join(_line(line) if line.startswith("|") else line for line in text.split("\n"))


def _line(line: str) -> str:
    cells = line[1:-1].split("|")
    rule = re.fullmatch(r"[|:-]+", line)
    return f"| {' | '.join('---' if rule else cell.strip() for cell in cells)} |"
