"""Every figure with extreme values, names and counts: nothing is cut off, and nothing warns."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from tests.drawn import GIVEN, Given, assert_inside, assert_whole

import finetrace
from finetrace.atlas import figures as atlas
from finetrace.figures import downstream, methods, tuning
from finetrace.lenses.calibration import figures as calibration
from finetrace.lenses.calibration.measures import calibration as calibrated
from finetrace.lenses.cloze import figures as cloze
from finetrace.lenses.convergence import figures as convergence
from finetrace.lenses.convergence.correlation import Correlation
from finetrace.lenses.cross_task import figures as cross_task
from finetrace.lenses.directprobe import figures as directprobe
from finetrace.lenses.dynamics.figures import panels as dynamics
from finetrace.lenses.edges import figures as edges
from finetrace.lenses.features import figures as features
from finetrace.lenses.features.change import Plane
from finetrace.lenses.geometry import figures as geometry
from finetrace.lenses.geometry.cones import ConeStatistics
from finetrace.lenses.geometry.summary import Bands
from finetrace.lenses.hulls import figures as hulls
from finetrace.lenses.infodynamics.cartography import Cartography
from finetrace.lenses.infodynamics.figures import panels as information
from finetrace.lenses.infodynamics.figures.probe_set import probe_set
from finetrace.lenses.infodynamics.measures import Dynamics
from finetrace.lenses.infodynamics.slope import resonance_novelty_slope
from finetrace.lenses.kernel import figures as kernel
from finetrace.lenses.pairs import figures as pairs
from finetrace.lenses.probes import figures as probes
from finetrace.lenses.similarity import figures as similarity

FIGURES: dict[str, Callable[[Given], Figure]] = {}
ELSEWHERE = {"finetrace.first_look.figures._styled"}
"""Drawn as SVG for one page: tests/unit/test_first_look.py."""


def figure_of(function: Callable[..., Figure]) -> Callable[[Callable[[Given], Figure]], Callable[[Given], Figure]]:
    """Say how a figure is made of what is given."""
    def remember(make: Callable[[Given], Figure]) -> Callable[[Given], Figure]:
        FIGURES[f"{function.__module__}.{function.__name__}"] = make
        return make
    return remember


def named(g: Given, values: Callable[..., np.ndarray], *shape: int, most: int = 1000) -> dict[str, np.ndarray]:
    return {name: values(*shape) for name in g.names(most)}


def said(g: Given) -> dict[str, Any]:
    return {"title": g.title, "note": g.note}


def test_every_figure_is_among_them() -> None:
    found = set()
    for module in pkgutil.walk_packages(finetrace.__path__, "finetrace."):
        if "figures" in module.name.split("."):
            for name, one in vars(importlib.import_module(module.name)).items():
                if inspect.isfunction(one) and hasattr(one, "__wrapped__") and one.__module__ == module.name:
                    found.add(f"{module.name}.{name}")
    assert len(found) > 50 and found - ELSEWHERE == FIGURES.keys()


# --- how each is made


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


@figure_of(convergence.convergence)
def _convergence(g: Given) -> Figure:
    some = Correlation(0.9, 0.5, 1.0, 0.001, 12, 6)
    rows = {name: {"spearman": some, "pearson": Correlation(*[np.nan] * 4, 4, 2)} for name in g.names(4)}
    return convergence.convergence(g.layers, 2 * g.share(g.count, g.count) - 1, g.share(g.count, g.count), rows,
                                   split="validation", **said(g))


@figure_of(cross_task.classes)
def _classes(g: Given) -> Figure:
    return cross_task.classes(g.names(), g.size(g.count), g.size(g.count)[::-1].copy(), **said(g))


@figure_of(cross_task.layers)
def _cross_layers(g: Given) -> Figure:
    counts = list(range(g.count))
    return cross_task.layers(g.layers, counts, counts[::-1], g.numbers(g.count), named(g, g.shares, g.count, most=4),
                             floor=0.1, **said(g))


@figure_of(directprobe.labels)
def _direct_labels(g: Given) -> Figure:
    return directprobe.labels(g.names(), [10**9] * g.count, g.size(g.count), g.size(g.count, g.count), **said(g))


@figure_of(directprobe.layers)
def _direct_layers(g: Given) -> Figure:
    return directprobe.layers({n: dict.fromkeys(g.layers, g.size(g.count)) for n in g.names()}, **said(g))


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


@figure_of(features.course)
def _features_course(g: Given) -> Figure:
    keys = {"cosine": lambda n: g.ends(2 * g.share(n) - 1, (-1, 1)), "diff": g.sizes, "fdr": g.sizes,
            "fdr_ridge": g.sizes}
    curves = {n: {k: of(g.count) for k, of in keys.items()} for n in g.names(9)}
    return features.course(g.steps, g.steps[-1], curves, g.size(g.count), named(g, g.size, g.count), **said(g))


@figure_of(features.planes)
def _planes(g: Given) -> Figure:
    flat = Plane(np.zeros(4), np.eye(2, 4), np.array([0.7, 0.3]))
    rows, labels = 3 * g.count, np.arange(3 * g.count) % g.count
    states = ("before (step 0)", f"after (step {g.steps[-1]:,})")
    whole = Given(1, g.scale)
    return features.planes({s: whole.number(rows, 4) for s in states}, {s: whole.number(g.count, 4) for s in states},
                           labels, g.names(), flat, **said(g))


@figure_of(features.neighbours)
def _neighbours(g: Given) -> Figure:
    labels = np.arange(3 * g.count) % g.count
    return features.neighbours({s: g.number(len(labels), 2) for s in "ab"}, {s: g.number(g.count, 2) for s in "ab"},
                               labels, g.names(), **said(g))


def _bands(values: np.ndarray) -> Bands:
    return Bands(values[..., 0], values[..., 1], values[..., 2])


@figure_of(geometry.cosine_boxes)
def _boxes(g: Given) -> Figure:
    boxes = np.sort(2 * g.share(g.count, 5) - 1, axis=1)
    cosines = _bands(g.ends(2 * g.share(g.count) - 1, (-1, 1)))
    return geometry.cosine_boxes(boxes, boxes, cosines, cosines, steps=(0, g.steps[-1]), **said(g))


@figure_of(geometry.layer_profiles)
def _profiles(g: Given) -> Figure:
    of = {s: (_bands(g.sizes(g.count)), _bands(g.sizes(g.count))) for s in geometry.SPREAD}
    return geometry.layer_profiles(of, geometry.LABELS, steps=(0, g.steps[-1]), **said(g))


@figure_of(geometry.trajectories)
def _trajectories(g: Given) -> Figure:
    shape = g.count, g.count
    of = {"cosine_mean": _bands(g.ends(2 * g.share(*shape) - 1, (-1, 1))), "effective_rank": _bands(g.sizes(*shape)),
          "anisotropy": _bands(g.ends(2 * g.share(*shape) - 1, (-1, 1)))}
    return geometry.trajectories(np.array(g.steps), of, geometry.LABELS, **said(g))


@figure_of(geometry.class_cones)
def _cones(g: Given) -> Figure:
    classes, rows = max(2, g.count), 20 * g.count
    cosines = 2 * g.share(rows, classes) - 1
    one = ConeStatistics(2 * g.share(classes, classes) - 1, 0.5, 0.1, 30.0, g.scale)
    names = [*g.names(), "another"][:classes]
    return geometry.class_cones([cosines] * 2, [cosines[:, 0]] * 2, np.arange(rows) % classes, names,
                                statistics=(one, one), steps=(0, g.steps[-1]), layer=3, **said(g))


@figure_of(hulls.clusters)
def _clusters(g: Given) -> Figure:
    counts = {name: np.arange(2, 2 + g.count) * 10**(6 if g.scale > 1 else 0) for name in g.names(9)}
    return hulls.clusters(g.layers, counts, {n: v % 2 == 0 for n, v in counts.items()}, 2, **said(g))


@figure_of(hulls.tracks)
def _tracks(g: Given) -> Figure:
    return hulls.tracks(g.steps, g.names(), g.size(g.count, g.count), **said(g))


@figure_of(hulls.likeness)
def _likeness(g: Given) -> Figure:
    return hulls.likeness(g.layers, g.steps, 2 * g.share(g.count, g.count) - 1,
                          {n: 2 * v - 1 for n, v in named(g, g.share, g.count, most=2).items()}, **said(g))


@figure_of(hulls.label_pairs)
def _label_pairs(g: Given) -> Figure:
    both = g.size(g.count, g.count)
    return hulls.label_pairs(g.names(), both, both, ("first", "last"), **said(g))


@figure_of(hulls.motion)
def _motion(g: Given) -> Figure:
    points = g.number(g.count, g.count, 2)
    paths = [(layer, points, np.array([0.7, 0.2])) for layer in (0, 1)]
    some = list(range(min(g.count, 5)))
    return hulls.motion(paths, g.names(), {0: some, 1: some}, g.layers, g.size(g.count, g.count), **said(g))


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


@figure_of(probes.lattice)
def _lattice(g: Given) -> Figure:
    rows = {name: {layer: tuple(one) for layer, one in enumerate(g.shares(g.count))} for name in g.names()}
    return probes.lattice(rows, split="validation", floor=0.3, row_label="step", **said(g))  # type: ignore[arg-type]


@figure_of(probes.by_layer)
def _by_layer(g: Given) -> Figure:
    return probes.by_layer(g.layers, named(g, g.shares, g.count, most=9), split="validation", floor=0.3,
                           own=dict.fromkeys(g.names(), 0.9), **said(g))


@figure_of(probes.training)
def _training(g: Given) -> Figure:
    keys = {"train_loss": g.size, "test_loss": g.size, "train_accuracy": g.share, "test_accuracy": g.share}
    states = {f"step {s}": {k: of(g.count, g.count) for k, of in keys.items()} for s in (0, 9)}
    return probes.training(g.layers, states, split="validation", **said(g))


@figure_of(probes.compare)
def _compare(g: Given) -> Figure:
    kinds = {name: g.shares(g.count) for name in ("logistic regression", "best network", "control task")}
    return probes.compare(g.layers, {"step 0": kinds, "step 9": kinds}, split="validation", floor=0.3, **said(g))


@figure_of(probes.compression)
def _compression(g: Given) -> Figure:
    return probes.compression(g.layers, named(g, g.size, g.count, most=9), **said(g))


@figure_of(probes.learning)
def _probes_learning(g: Given) -> Figure:
    return probes.learning(g.steps, g.layers, {s: g.shares(g.count, g.count) for s in ("subtrain", "validation")},
                           floor=0.3, **said(g))


@figure_of(similarity.heat_maps)
def _heat_maps(g: Given) -> Figure:
    at = np.array(g.steps)
    one = similarity.Lattice(f"tokens, {'x' * 9}", np.arange(g.count), at, 2 * g.share(g.count, g.count) - 1)
    return similarity.heat_maps([[one, one], [one, one]], "cka", "optimiser step", "layer", **said(g))


@figure_of(similarity.measures)
def _measures(g: Given) -> Figure:
    of = {m: (np.arange(g.count), *np.moveaxis(g.ends(2 * g.share(g.count) - 1, (-1, 1)), -1, 0))
          for m in similarity.LABELS}
    return similarity.measures({"tokens": of, "mean": of, "cls": of}, **said(g))


@figure_of(similarity.changes)
def _similarity_changes(g: Given) -> Figure:
    one = np.arange(g.count), np.array(g.steps), 2 * g.share(g.count, g.count) - 1
    return similarity.changes({"cls": one, "mean": one}, "cka", **said(g))


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


@pytest.mark.parametrize("name", FIGURES)
def test_broken_values_and_long_names_are_drawn_whole(name: str) -> None:
    assert_whole(FIGURES[name](GIVEN["broken"]))


@pytest.mark.parametrize("name", FIGURES)
def test_a_single_tiny_value_is_drawn(name: str) -> None:
    assert_inside(FIGURES[name](GIVEN["one tiny"]))


@pytest.mark.slow
@pytest.mark.parametrize("given", ["one", "one tiny", "many, huge", "some, tiny"])
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off(name: str, given: str) -> None:
    assert_whole(FIGURES[name](GIVEN[given]))
