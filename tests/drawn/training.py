"""How the figures of what a training does, learns and knows are made of given values."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from finetrace.atlas import figures as atlas
from finetrace.figures import downstream, methods, tuning
from finetrace.lenses.calibration import figures as calibration
from finetrace.lenses.calibration.measures import calibration as calibrated
from finetrace.lenses.cloze import figures as cloze
from finetrace.lenses.dynamics.figures import panels as dynamics
from finetrace.lenses.edges import figures as edges
from finetrace.lenses.infodynamics.cartography import Cartography
from finetrace.lenses.infodynamics.figures import panels as information
from finetrace.lenses.infodynamics.figures.probe_set import probe_set
from finetrace.lenses.infodynamics.measures import Dynamics
from finetrace.lenses.infodynamics.slope import resonance_novelty_slope
from finetrace.lenses.kernel import figures as kernel
from finetrace.lenses.pairs import figures as pairs
from tests.drawn import Given, figure_of, named, said


@figure_of(calibration.reliability)
def _reliability(g: Given) -> Figure:
    rng = np.random.default_rng(0)
    rows, classes = (1, 2) if g.count == 1 else (40 * g.count, 3)
    labels = rng.integers(0, classes, rows)
    sure = np.full((rows, classes), 1e-12) if g.scale < 1 else rng.dirichlet([0.3] * classes, rows)
    one = calibrated(sure / sure.sum(axis=1, keepdims=True), labels)
    sets = {name: (one, one) for name in g.names(4)}
    return calibration.reliability(sets, g.scale, fitted_on=g.names()[0], **said(g))


@figure_of(calibration.course)
def _calibration_course(g: Given) -> Figure:
    keys = {"accuracy": g.shares, "ece": g.shares, "ece_scaled": g.shares, "nll": g.sizes, "nll_scaled": g.sizes}
    return calibration.course(g.steps, g.steps[-1], {n: {k: of(g.count) for k, of in keys.items()} for n in g.names(9)},
                              g.size(g.count) + 0.01, **said(g))


@figure_of(cloze.by_step)
def _cloze_by_step(g: Given) -> Figure:
    layers = {s: {layer: g.shares(g.count) for layer in (*g.layers, -1)} for s in ("p_at_1", "p_at_10")}
    control = {"known": g.shares(g.count), "held_out": g.shares(g.count), "chance": 0.1}
    return cloze.by_step(g.steps, layers, control, readout="own", axis="steps", **said(g))


@figure_of(cloze.by_readout)
def _by_readout(g: Given) -> Figure:
    lines = {name: g.shares(g.count) for name in cloze.NAMES}
    return cloze.by_readout({"p_at_1": lines, "p_at_10": lines}, **said(g))


@figure_of(cloze.relations)
def _relations(g: Given) -> Figure:
    maps = named(g, g.share, g.count, g.count, most=12)
    return cloze.relations(g.steps, maps, readout="own", axis="steps", **said(g))


@figure_of(cloze.changes)
def _cloze_changes(g: Given) -> Figure:
    steps = [0, *(s + 1 for s in g.steps)]
    return cloze.changes(steps, {k: g.share(len(steps)) / 3 for k in ("learned", "kept", "lost")}, readout="own",
                         axis="steps", **said(g))


@figure_of(edges.scores)
def _edge_scores(g: Given) -> Figure:
    return edges.scores(g.steps, named(g, g.shares, g.count, g.count), full=named(g, g.shares, g.count),
                        majority=dict.fromkeys(g.names(), 0.2), **said(g))


@figure_of(edges.lattices)
def _lattices(g: Given) -> Figure:
    return edges.lattices(g.steps, named(g, g.shares, g.count, g.count), **said(g))


@figure_of(edges.strips)
def _strips(g: Given) -> Figure:
    return edges.strips(g.steps, named(g, g.share, g.count, g.count), **said(g))


@figure_of(edges.centre)
def _centre(g: Given) -> Figure:
    of = {name: (g.count - 1) * values for name, values in named(g, g.share, g.count).items()}
    return edges.centre(g.steps, of, of, layers=g.count, **said(g))


@figure_of(edges.cumulative)
def _cumulative(g: Given) -> Figure:
    return edges.cumulative(g.steps, named(g, g.shares, g.count, g.count), named(g, g.share, g.count), **said(g))


def _series(g: Given, count: int) -> Dynamics:
    novelty, transience = g.size(count), g.size(count)[::-1].copy()
    resonance = np.where(np.isfinite(novelty + transience), novelty, np.nan) - np.where(
        np.isfinite(novelty + transience), transience, 0)
    return Dynamics(novelty, transience, resonance, novelty, transience, novelty)


@figure_of(information.signals)
def _signals(g: Given) -> Figure:
    count = 30 * g.count
    return information.signals(np.arange(count), _series(g, count), _series(g, count), window=5, examples_per_epoch=7.0,
                               plateau=0.3 * g.scale, changes=[3.0], title=g.title)


@figure_of(information.smoothing)
def _smoothing(g: Given) -> Figure:
    count = 30 * g.count
    return information.smoothing(np.arange(count), _series(g, count), {s: _series(g, count) for s in (4, 8, 16)},
                                 examples_per_epoch=7.0, title=g.title)


@figure_of(information.slope)
def _slope(g: Given) -> Figure:
    one = _series(g, 30 * g.count)
    keep = np.isfinite(one.novelty) & np.isfinite(one.resonance)
    found = resonance_novelty_slope(one.novelty[keep], one.resonance[keep])
    return information.slope(one.novelty, one.resonance, found, title=g.title)


@figure_of(information.learning)
def _learning(g: Given) -> Figure:
    x = np.arange(10.0 * g.count)
    return information.learning(x, g.size(len(x)), train_loss=(x, g.size(len(x))),
                                eval_loss=(x[::5], g.size(len(x[::5]))),
                                train_accuracy=(x, g.share(len(x))), eval_accuracy=(x[::5], g.share(len(x[::5]))),
                                confidence=g.share(len(x)), plateau=0.5 * g.scale, chance=0.5, changes=[2.0],
                                examples_per_epoch=7.0, title=g.title)


@figure_of(information.comparison)
def _comparison(g: Given) -> Figure:
    one = _series(g, 40)
    keep = np.isfinite(one.novelty) & np.isfinite(one.resonance)
    found = resonance_novelty_slope(one.novelty[keep], one.resonance[keep])
    curves = [information.DynamicsCurve(name, np.arange(40), one.novelty, one.resonance, found) for name in g.names()]
    return information.comparison([*curves, curves[0]], title=g.title)


@figure_of(probe_set)
def _probe_set(g: Given) -> Figure:
    steps, one = np.array(g.steps), _series(g, g.count)
    of = Cartography(g.share(60), g.share(60) / 2, g.share(60))
    return probe_set(steps, one, of, window=3, spread=(one.novelty, one.transience), title=g.title)


@figure_of(kernel.course)
def _kernel_course(g: Given) -> Figure:
    parts = ("pretrain_effective", "ft_effective", "full")
    panels = [kernel.Panel(f"Panel {scale}", "unit", scale, {p: of(g.count) for p in parts}, floor)
              for scale, of, floor in (("log", g.sizes, None), ("zero", g.numbers, None), ("share", g.shares, 0.5))]
    return kernel.course(g.steps, panels, **said(g))


@figure_of(kernel.spectra)
def _spectra(g: Given) -> Figure:
    values = np.sort(Given(g.count).share(g.count))[::-1] * (1 if g.scale >= 1 else np.geomspace(1, 1e-12, g.count))
    lines = {f"step {step:,}": (values, g.count) for step in (0, 1_000_000)}
    return kernel.spectra(dict.fromkeys(kernel.LABELS, lines), 1e-7, **said(g))


@figure_of(kernel.blocks)
def _blocks(g: Given) -> Figure:
    labels = np.arange(2 * g.count) % g.count
    of = {f"step {step}": dict.fromkeys(kernel.LABELS, g.size(len(labels), len(labels))) for step in (0, 9)}
    return kernel.blocks(of, labels, g.names(), **said(g))


@figure_of(kernel.groups)
def _groups(g: Given) -> Figure:
    names = ["embeddings", *(f"layer-{i:02d}/{kind}" for i in g.layers for kind in ("attention", "ffn")), "rest"]
    values = g.share(len(names)) / len(names)
    return kernel.groups({f"step {s}": dict(zip(names, values, strict=True)) for s in (0, 9)}, **said(g))


@figure_of(pairs.by_step)
def _pairs_by_step(g: Given) -> Figure:
    return pairs.by_step(g.steps, named(g, g.shares, g.count), axis="steps", **said(g))


@figure_of(pairs.acquisition)
def _acquisition(g: Given) -> Figure:
    last = 10.0 * (g.steps[-1] + 1)
    ages = {name: np.array([np.nan] * 3 if i % 3 == 2 else [last / 2, 1e-3 if g.scale < 1 else last / 4, np.nan])
            for i, name in enumerate(g.names())}
    reasons = dict.fromkeys(ages, "never passes the middle between chance and its last value")
    return pairs.acquisition([*g.steps, int(last)], ages, reasons, axis="steps", **said(g))


@figure_of(pairs.by_paradigm)
def _by_paradigm(g: Given) -> Figure:
    return pairs.by_paradigm(g.steps, named(g, g.share, g.count), axis="steps", **said(g))


@figure_of(dynamics.courses)
def _courses(g: Given) -> Figure:
    at = np.array(g.steps, dtype=float)
    panels = [dynamics.Panel(name, [dynamics.Line(label, at, *np.moveaxis(of(g.count), -1, 0), factor=1.0)
                                    for label in ("original", "adapted") for of in (g.numbers,)], "F1 (%)",
                             ("majority", g.scale), at[-1]) for name in g.names()]
    return dynamics.courses(panels, axis="pre-training steps", unit=20.0, mark="90 % of the gain", **said(g))


@figure_of(dynamics.differences)
def _differences(g: Given) -> Figure:
    rows = {name: {kind: tuple(g.numbers(1)[0]) for kind in dynamics.DIFFERENCE_NAMES} for name in g.names()}
    return dynamics.differences(rows, **said(g))


@figure_of(dynamics.gains)
def _gains(g: Given) -> Figure:
    last = float(g.steps[-1])
    dots = [dynamics.Dot(layer, last * share) for layer, share in enumerate(g.share(g.count))]
    rows = {name: [*dots, dynamics.Dot(None, last / 2, 0.0, last)] for name in g.names()} | {"none": []}
    return dynamics.gains(rows, steps=g.steps, axis="steps", unit=20.0, **said(g))


@figure_of(downstream.downstream)
def _downstream(g: Given) -> Figure:
    return downstream.downstream(g.steps, g.share(g.count, g.count), 0.5, metric="matthews_correlation",
                                 split="validation", axis="pre-training steps", title=g.title)


@figure_of(methods.methods)
def _methods(g: Given) -> Figure:
    sets = g.names()[:12]
    shares = dict(zip(("accuracy", "ece", "ece_scaled"), g.share(3).tolist(), strict=True))
    one = {f"{s}/{k}": v for s in sets for k, v in shares.items()}
    one |= {f"{sets[0]}/diff": float(g.size(1)[0]), "head_norm/first": float(g.size(2)[1])}
    return methods.methods({name: [one] * min(g.count, 3) for name in g.names(7)}, sets, sets[0], title=g.title)


def _trials(g: Given) -> list[dict[str, Any]]:
    values = g.number(g.count).tolist()
    return [{"number": i, "state": ("COMPLETE", "PRUNED", "FAIL")[i % 3] if i else "COMPLETE", "value": value,
             "params": {"learning_rate": 10.0**-i, "scheduler": name, "batch_size": 32}, "looks": {}}
            for i, (value, name) in enumerate(zip(values, g.names(), strict=True))]


@figure_of(tuning.history)
def _history(g: Given) -> Figure:
    return tuning.history(_trials(g), "accuracy")


@figure_of(tuning.importance)
def _importance(g: Given) -> Figure:
    return tuning.importance({name: float(v) for name, v in zip(g.names(), g.share(g.count), strict=True)})


@figure_of(tuning.parallel)
def _parallel(g: Given) -> Figure:
    return tuning.parallel(_trials(g), "accuracy")


@figure_of(atlas.scores)
def _scores(g: Given) -> Figure:
    shares = Given(g.count, g.scale).share(g.count)
    found = [atlas.Score(task, label, float(share), 10) for task in g.names(3)
             for label, share in zip(g.names(), shares, strict=True)]
    return atlas.scores(found, {name: {"bag of words": 0.7, "most frequent class": 0.5} for name in g.names(3)})


@figure_of(atlas.before_and_after)
def _before_and_after(g: Given) -> Figure:
    of = {label: dict.fromkeys(g.layers, g.numbers(2)) for label in g.names(9)}
    return atlas.before_and_after({"anisotropy": of, "effective rank": of}, title=g.title)


@figure_of(atlas.pretraining)
def _pretraining(g: Given) -> Figure:
    return atlas.pretraining({name: (np.array(g.steps), g.size(g.count), g.share(g.count)) for name in g.names(9)})
