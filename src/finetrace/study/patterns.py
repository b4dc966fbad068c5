"""Patterns over places: how a study says which trajectories it means.

micro-a/micro-sentiment/ft/s1     one place
micro-a/*/ft/*                    * stands for any text within one part of a place
micro-a/**                        ** stands for any number of parts
*/*/{lp-ft,lora}/s1               {a,b} stands for a or b
all                               every place
!micro-random/**                  in a list: but for these
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

ALL = "all"


def select(
    patterns: str | Sequence[str], places: Sequence[str], where: str, elsewhere: Iterable[str] = ()
) -> list[str]:
    """The places that patterns match, in the order of `places`.

    where: the key in params.yaml, for messages;  elsewhere: places that exist but cannot be meant here.
    Raises ValueError for a pattern that matches nothing, naming the nearest places.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    positive = [p for p in patterns if not p.startswith("!")]
    matched = {pattern: {p for p in places if matches(p, pattern.removeprefix("!"))} for pattern in patterns}
    for pattern, matching in matched.items():
        if not matching:
            raise ValueError(_no_match(pattern, places, where, elsewhere))
    chosen = set().union(*(matched[p] for p in positive)) if positive else set(places)
    chosen -= set().union(*(matched[p] for p in patterns if p not in positive))
    return [p for p in places if p in chosen]


def matches(place: str, pattern: str) -> bool:
    """Whether a pattern (without !) fits a whole place."""
    if pattern == ALL:
        return True
    return any(_parts_match(place.split("/"), alternative.split("/")) for alternative in alternatives(pattern))


def alternatives(pattern: str) -> list[str]:
    """A pattern with every {a,b} written out."""
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if braces is None:
        return [pattern]
    return [
        text
        for option in braces[1].split(",")
        for text in alternatives(pattern[: braces.start()] + option.strip() + pattern[braces.end() :])
    ]


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """The names most like one, for a message; all when they are few."""
    known = list(known)
    if len(known) > count:
        known.sort(key=lambda candidate: -difflib.SequenceMatcher(None, name, candidate).ratio())
    return ", ".join(known[:count]) or "none"


def _parts_match(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_parts_match(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _parts_match(parts[1:], pattern[1:])


def _no_match(pattern: str, places: Sequence[str], where: str, elsewhere: Iterable[str]) -> str:
    text = pattern.removeprefix("!")
    others = [p for p in elsewhere if matches(p, text)]
    if others:
        known_places = f"there are: {nearest(text, places)}"
        return f"{where}: {pattern!r} means only {', '.join(others[:3])}, which cannot stand here; {known_places}"
    hint = f"; did you mean {text.replace('_', '/')!r}?" if text.replace("_", "/") in places else ""
    return f"{where}: {pattern!r} matches no place{hint}; nearest: {nearest(text, places)}"
