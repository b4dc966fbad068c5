"""What is said of a headline metric of a lens, wherever it is shown.

A lens declares its own in `headlines.py`: `HEADLINES`, which are columns; `COURSES`, if any, which are none, but whose
courses are signals of a training as those of headlines are; `AT_CHECKPOINTS`. No stage of a lens imports them: another
sentence measures nothing again.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

DIRECTIONS = {"up": "higher is better", "down": "lower is better", "": ""}


@dataclass(frozen=True)
class Enough:
    """From how many examples on a lens has found what was planted in 90 % of samples (docs/grounding.md). With fewer,
    a lens that finds nothing has not shown that there is nothing."""

    examples: int
    noun: str
    """What they are, e.g. sentences."""
    fact: str
    """Where the lens's manifest says how many there were: a number, or numbers by set, of which the smallest counts."""

    def warning(self, facts: Mapping[str, Any]) -> str:
        """A sentence where there were fewer, else an empty text. facts: of the lens's manifest."""
        seen = facts.get(self.fact)
        counts = [count for count in (seen.values() if isinstance(seen, Mapping) else [seen]) if count is not None]
        fewest = min(counts, default=self.examples)
        if fewest >= self.examples:
            return ""
        return f"looked at {fewest} {self.noun}; what it does not find counts from {self.examples} on"


@dataclass(frozen=True)
class Headline:
    """One number by which trajectories are compared."""

    metric: str
    """Its name in the lens's metrics.json. `*` stands for the last layer, or for the split; of several, `a|b`, the
    first that is there counts."""
    heading: str
    """A few words, for the head of a column."""
    unit: str
    """E.g. nats, share; empty where there is none."""
    digits: int
    """After the point."""
    direction: Literal["up", "down", ""]
    """Which way is better; empty where a number only describes."""
    sentence: str
    """What it says, in one sentence."""
    mean_of: str = ""
    """Where the lens writes one number per task or corpus: their name with `*`. `metric` is then their mean, made by
    the reader."""
    short: str = ""
    """One word, for the one or two metrics of a lens that `dvc metrics` shows."""
    enough: Enough | None = None
    """Where it is known how many examples it takes."""
    split: str = ""
    """Of its course in the lens's table, where the name leaves it open and it is not the table's first."""

    @property
    def explanation(self) -> str:
        """The sentence with unit, direction and the examples that it takes."""
        enough = f"trust it from {self.enough.examples} {self.enough.noun} on" if self.enough else ""
        details = [text for text in (self.unit, DIRECTIONS[self.direction], enough) if text]
        return f"{self.sentence} ({'; '.join(details)})" if details else self.sentence


@dataclass(frozen=True)
class AtCheckpoint:
    """One number by which the checkpoints of trajectories are compared; a lens declares its own as `AT_CHECKPOINTS`."""

    name: str
    """One or two words, e.g. accuracy; shown as LENS/NAME."""
    columns: str
    """Where curves.csv has it. `{layer}` stands for the number of a layer, of which the last counts, `*` for any text:
    the mean of such columns counts. Of several, `a|b`, the first that is there counts."""
    largest: bool = False
    """Whether the layer with the largest number counts, and not the last."""
    metric: str = field(default="", repr=False)
    """The lens's headline metric that is the same number at one checkpoint; empty where none is."""


def columns_of(columns: str, names: Iterable[str]) -> list[list[str]]:
    """The names that fit `columns` of an `AtCheckpoint`: one list per text that stands for `*`, ascending by layer."""
    names = list(names)
    for pattern in columns.split("|"):
        expression = re.escape(pattern).replace(r"\*", "(?P<each>.+)").replace(r"\{layer\}", r"(?P<layer>\d+)")
        by_text: dict[str, list[tuple[int, str]]] = {}
        for name in names:
            if fits := re.fullmatch(expression, name):
                parts = fits.groupdict()
                by_text.setdefault(parts.get("each", ""), []).append((int(parts.get("layer", 0)), name))
        if by_text:
            return [[name for _, name in sorted(group)] for group in by_text.values()]
    return []


def value_of(metrics: Mapping[str, float], metric: str) -> float | None:
    """A metric by its name; with `*` for the layer or split, e.g. "cosine_mean/layer-*/last", the last by name that
    fits. Of several, `a|b`, the first that is there; None where there is none."""
    name = name_of(metrics, metric)
    return None if name is None else metrics[name]


def name_of(metrics: Mapping[str, float], metric: str) -> str | None:
    """The name in a lens's metrics.json of what `value_of` gives."""
    found = (matching(metrics, pattern) for pattern in metric.split("|"))
    return next((names[-1] for names in found if names), None)


def matching(metrics: Mapping[str, float], pattern: str) -> list[str]:
    """The names that fit a pattern, sorted; `*` in it stands for any text."""
    start, star, end = pattern.partition("*")
    if not star:
        return [pattern] if pattern in metrics else []
    return sorted(name for name in metrics if name.startswith(start) and name.endswith(end))


def add_means(metrics: dict[str, float], headlines: Sequence[Headline]) -> None:
    """Add the headline metrics that are means, over tasks or corpora, of what the lens has written."""
    for headline in headlines:
        names = names_of_mean(metrics, headline)
        if names:
            metrics[headline.metric] = sum(metrics[name] for name in names) / len(names)


def names_of_mean(metrics: Mapping[str, float], headline: Headline) -> list[str]:
    """The names in a lens's metrics.json, in its order, of which a headline metric is the mean; empty where it is
    none."""
    names = set(matching(metrics, headline.mean_of)) if headline.mean_of else set()
    return [name for name, value in metrics.items() if name in names and value is not None]
