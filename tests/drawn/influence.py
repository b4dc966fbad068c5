"""How the figures of influence are made of given values."""

import numpy as np
from matplotlib.figure import Figure

from finetrace.lenses.influence import figures as influence
from tests.drawn import Given, figure_of, said


def _texts(g: Given) -> list[list]:
    return [[float(value), name, name * 9] for value, name in zip(g.number(g.count), g.names(), strict=True)][:5]


@figure_of(influence.course)
def _course(g: Given) -> Figure:
    courses = {name: g.numbers(g.count) for name in ("influence", "cosine", "cosine_same_class", "cosine_other_class")}
    record = {"steps": g.steps, "split": "validation", "courses": courses,
              "groups": {name: g.number(g.count) for name in g.names()},
              "losses": {name: g.sizes(g.count) for name in ("train", "validation")}}
    return influence.course(record, **said(g))


@figure_of(influence.agreement)
def _agreement(g: Given) -> Figure:
    return influence.agreement(g.number(g.count), g.number(g.count), g.ends(g.share(1))[0], **said(g))


@figure_of(influence.examples)
def _examples(g: Given) -> Figure:
    shown = [{"seen": float(seen), "label": name, "text": name * 9, "helpful": _texts(g), "harmful": _texts(g)}
             for seen, name in zip(g.number(g.count), g.names(), strict=True)]
    return influence.examples(shown[:4], **said(g))


@figure_of(influence.noise)
def _noise(g: Given) -> Figure:
    return influence.noise(g.size(g.count), _texts(g), **said(g))


@figure_of(influence.recorded)
def _recorded(g: Given) -> Figure:
    steps = np.array(g.steps)
    of = {"starts": steps, "ends": steps + 1, "visits": steps, "watched": g.count, "value": g.numbers(g.count)}
    return influence.recorded({"validation": of, "train": of}, title=g.title)
