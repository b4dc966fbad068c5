"""The columns of the tables of the atlas."""

from collections.abc import Sequence
from typing import NamedTuple

from finetrace.atlas.collect import Entry, last_layer
from finetrace.atlas.page import Listing
from finetrace.atlas.places import Place


class Column(NamedTuple):
    """A column. part: "trajectory" or a lens;  metric: * is the last layer, or the split; None is the task's own."""

    heading: str
    part: str
    metric: str | None
    digits: int
    explanation: str


FINE_TUNINGS = [Column(*column) for column in (
    ("validation", "trajectory", None, 3, "the task's own metric on validation, final weights"),
    ("accuracy", "trajectory", "validation/accuracy", 3, "share of validation examples that are right"),
    ("steps", "trajectory", "steps", 0, "optimiser steps"),
    ("novelty", "infodynamics", "novelty_mean", 4, "mean novelty of the training logits, nats"),
    ("novelty, end", "infodynamics", "novelty_last_tenth", 4, "mean novelty of the last tenth of the run, nats"),
    ("plateau", "infodynamics", "novelty_plateau", 4, "novelty of a confident model that merely sees shuffled labels, nats"),
    ("resonance", "infodynamics", "resonance_mean", 5, "mean resonance, nats; 0 for a stationary run"),
    ("slope", "infodynamics", "slope", 3, "resonance on novelty, z-scores (Pearson's r)"),
    ("null low", "infodynamics", "slope_null_low", 3, "2.5 % of the slopes in shuffled order"),
    ("null high", "infodynamics", "slope_null_high", 3, "97.5 % of the slopes in shuffled order"),
    ("changes", "infodynamics", "change_points", 0, "change points of novelty"),
    ("correctness", "infodynamics", "probe/train/correctness", 3, "mean share of looks at which a probe example was right"),
    ("cosine, before", "geometry", "cosine_mean/layer-*/first", 3, "mean cosine within sentences, last layer, pre-trained"),
    ("cosine, after", "geometry", "cosine_mean/layer-*/last", 3, "the same after training: near 1, all tokens say one thing"),
    ("rank, before", "geometry", "effective_rank/layer-*/first", 1, "effective rank of the last layer's tokens, pre-trained"),
    ("rank, after", "geometry", "effective_rank/layer-*/last", 1, "the same after training"),
    ("CKA", "similarity", "cka/cls/layer-*/last|cka/span/layer-*/last", 3,
     "similarity of the last layer before and after training; 1: unchanged"),
    ("clusters, before", "hulls", "clusters/layer-*/first", 0, "hull probe: clusters of the last layer, pre-trained"),
    ("clusters, after", "hulls", "clusters/layer-*/last", 0, "the same after training; as many as classes: planes separate them"),
    ("distance, before", "hulls", "mean_outside_min/layer-*/first", 2, "mean distance of a class to its nearest, pre-trained"),
    ("distance, after", "hulls", "mean_outside_min/layer-*/last", 2, "the same after training"),
    ("probe, before", "probes", "best_accuracy/*/first", 3, "best layer's probe on the pre-trained model"),
    ("probe, after", "probes", "best_accuracy/*/last", 3, "best layer's probe after training"),
    ("ECE", "calibration", "test/ece", 3, "expected calibration error on test; 0: probabilities mean what they say"),
    ("ECE, scaled", "calibration", "test/ece_scaled", 3, "the same after temperature scaling fitted on validation"),
    ("head norm", "features", "head_norm/first", 2, "norm of the head before the first step"),
    ("feature change", "features", "validation/diff", 2, "mean distance that an example's feature vector moved"),
    ("FT ratio", "kernel", "ft_ratio/first", 3, "share of the first step's change of the logits that comes through the features"),
)]

MASKED_WORDS = [Column(*column) for column in (
    ("steps", "trajectory", "steps", 0, "optimiser steps"),
    ("checkpoints", "trajectory", "checkpoints", 0, "checkpoints of a published series or of an adaptation"),
    ("masked words", "trajectory", "validation/accuracy", 3, "share of held-out masked words that are right, final weights"),
    ("words, first", "edges", "mean_f1/first", 3, "edge probes on the mix of all layers, F1, mean over tasks, first checkpoint"),
    ("words, last", "edges", "mean_f1/last", 3, "the same at the last checkpoint"),
    ("facts, P@1", "cloze", "mean_p_at_1", 3, "facts whose object ranks first, own head, last checkpoint, mean over corpora"),
    ("facts, P@10", "cloze", "mean_p_at_10", 3, "the same among the ten best"),
)]


def listing(heading: str, names: str, found: Sequence[Entry | Place], columns: Sequence[Column]) -> Listing:
    """A table of trajectories. names: what their names say."""
    return Listing(heading, [("trajectory", names), *((column.heading, column.explanation) for column in columns)],
                   [[each.key, *(_cell(each, column) for column in columns)] for each in found],
                   [f"runs/{each.key}.html" for each in found])


def _cell(each: Entry | Place, column: Column) -> str:
    metric = column.metric or f"validation/{each.manifest.facts['metric']}"
    metrics = each.metrics.get(column.part, {})
    value = last_layer(metrics, metric) if "*" in metric else metrics.get(metric)
    return "–" if value is None else f"{value:.{column.digits}f}"
