"""How the figures of what layers and vectors are like are made of given values."""

import numpy as np
from matplotlib.figure import Figure

from finetrace.lenses.convergence import figures as convergence
from finetrace.lenses.convergence.correlation import Correlation
from finetrace.lenses.cross_task import figures as cross_task
from finetrace.lenses.directprobe import figures as directprobe
from finetrace.lenses.features import figures as features
from finetrace.lenses.features.change import Plane
from finetrace.lenses.geometry import figures as geometry
from finetrace.lenses.geometry.cones import ConeStatistics
from finetrace.lenses.geometry.summary import Bands
from finetrace.lenses.hulls import figures as hulls
from finetrace.lenses.probes import figures as probes
from finetrace.lenses.similarity import figures as similarity
from tests.drawn import Given, figure_of, named, said


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
