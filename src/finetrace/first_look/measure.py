"""The lenses of a first look, on one model or on two: the functions and numbers of a study, at one checkpoint.

Each function is the one-checkpoint case of its lens's stage, with the stage's seeds and default settings, so that a
study with the same rows says the same (tests/integration/test_first_look_study.py).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finetrace import seeds
from finetrace.errors import blame
from finetrace.first_look.states import STEP, Answers
from finetrace.lenses.calibration.settings import CalibrationSettings
from finetrace.lenses.convergence.settings import ConvergenceSettings
from finetrace.lenses.geometry.settings import GeometrySettings
from finetrace.lenses.hulls.settings import HullsSettings
from finetrace.lenses.probes.settings import ProbesSettings
from finetrace.lenses.similarity.settings import SimilaritySettings
from finetrace.longtable import LongTable
from finetrace.store.hidden import HiddenStates, finite

SPLIT = "validation"
"""The split whose tokens are measured, and on which probes and heads are scored."""


@dataclass(frozen=True)
class Measured:
    """What a lens says about a model, or a pair of models.

    table: all numbers, long;  metrics: a few of them by the names of metrics.json;  facts: what figures and notes need.
    """

    table: LongTable
    metrics: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)


def layers_of(hidden: HiddenStates) -> range:
    """The numbers of the hidden states; 0: the embeddings."""
    return range(int(hidden.manifest.facts["layers"]))


def geometry(hidden: HiddenStates, task: str, study_seed: int) -> Measured:
    """Cosines, ranks, isotropy and class cones of every layer, with 95 % intervals."""
    from finetrace.lenses.geometry import summary
    from finetrace.lenses.intervals import groups_of

    settings, seed = GeometrySettings(), seeds.derive(study_seed, "geometry", task)
    inside = np.flatnonzero(hidden.splits[hidden.sentence_rows] == settings.split)
    with blame(f"--task {task}"):
        sample = summary.make_sample(hidden.offsets, hidden.special, hidden.token_ids, sentences=inside,
                                     special_tokens=settings.special_tokens, draws=settings.draws,
                                     groups=settings.groups, seed=seed)
    rows = hidden.rows(settings.split)
    sentences = hidden.sentence_codes(rows)
    groups = groups_of(int(sentences.max()) + 1, settings.groups, seed)[sentences]
    parts = []
    for layer in layers_of(hidden):
        values = _layer(hidden, "tokens", layer)
        estimates = summary.sentence_estimates(values, sample)
        estimates.append(summary.spectral_estimates(values, sample, settings.dimension_tokens))
        vectors = _layer(hidden, settings.cones_vectors, layer)[rows]
        estimates.append(summary.cone_estimates(vectors, hidden.labels[rows], hidden.label_names, groups))
        parts.append(summary.table_rows(STEP, layer, estimates, None))
    table = summary.table(parts)
    metrics = table.headlines({name: {"statistic": name} for name in ("cosine_mean", "effective_rank", "anisotropy")},
                              [STEP], layers_of(hidden))
    return Measured(table, metrics, {"sentences": len(inside), "tokens": len(sample.select)})


def hulls(hidden: HiddenStates, task: str, study_seed: int) -> Measured:
    """Clusters of one class with disjoint convex hulls, and the distances of classes, in every layer.

    Of the training rows; validation rows are only looked up among their clusters, and not probed by themselves.
    """
    from finetrace.inference.choose import choose_rows
    from finetrace.lenses.hulls import partition, summary
    from finetrace.lenses.hulls.centroids import centroids

    settings, seed = HullsSettings(), seeds.derive(study_seed, "hulls", task)
    names, kind = np.arange(len(hidden.label_names)), hidden.kind(settings.vectors)
    rows, new_rows = hidden.rows(settings.split), hidden.rows(settings.compare_split)
    rows = rows[choose_rows(hidden.labels[rows], settings.max_points, "stratified",
                            seeds.derive(seed, "points", settings.split))]
    new_rows = new_rows[choose_rows(hidden.labels[new_rows], settings.predict_rows, "stratified",
                                    seeds.derive(seed, "predict"))]
    track: dict[tuple[int, int], summary.Space] = {}
    for layer in layers_of(hidden):
        values, labels = _layer(hidden, kind, layer).astype(np.float64), hidden.labels[rows]
        clusters = partition.probe(values[rows], labels, classes=names)
        distances = partition.label_distances(clusters, min_size=settings.min_size, reduce=settings.reduce,
                                              missing=settings.missing)
        right = partition.predict(clusters, values[new_rows], nearest=1).labels == hidden.labels[new_rows]
        track[STEP, layer] = summary.Space(
            distances, np.bincount(labels, minlength=len(names)), clusters.count,
            sum(map(len, clusters.conflicts)), clusters.decisions.get("undecided", 0),
            centroids(values[rows], labels, len(names)), right, hidden.sentence_codes(new_rows))
    table = summary.table(summary.rows(track, settings.split, hidden.label_names))
    metrics = summary.metrics(table, settings.split)
    return Measured(table, metrics, {"split": settings.split, "points": len(rows), "dim": hidden.width,
                                  "classes": int(metrics.get("labels", 0)), "trivial": len(rows) <= hidden.width + 1})


def probes(hidden: HiddenStates, task: str, study_seed: int) -> Measured:
    """Accuracy of a converged logistic regression on the frozen vectors of every layer."""
    from finetrace.lenses.probes import report, summary
    from finetrace.lenses.probes.linear import check_split, majority_floor

    settings, seed = ProbesSettings(), seeds.derive(study_seed, "probes", task)
    scored = settings.test_splits[0]
    rows_of = {split: hidden.rows(split) for split in (settings.train_split, scored)}
    labels = {split: hidden.labels[rows] for split, rows in rows_of.items()}
    with blame(f"--task {task}", "raise --rows"):
        for split, split_labels in labels.items():
            check_split(split, split_labels, hidden.label_names)
    layers = list(layers_of(hidden))
    kind = hidden.kind(settings.vectors)
    values = [_layer(hidden, kind, layer) for layer in layers]
    features = {split: np.stack([layer[rows] for layer in values]) for split, rows in rows_of.items()}
    units = {split: hidden.sentence_codes(rows) for split, rows in rows_of.items()} if hidden.spans else {}
    batch = summary.Batch([(STEP, layer) for layer in layers], features, labels, settings.train_split, units)
    with blame(f"--task {task}", "raise --rows"):
        table = summary.table(summary.logistic_rows(
            batch, l2=settings.l2, holdout=settings.holdout, seed=seeds.derive(seed, "holdout"),
            tolerance=settings.tolerance, max_iterations=settings.max_iterations, device="cpu"))
    floors = {scored: majority_floor(labels[settings.train_split], labels[scored])}
    metrics = report.metrics(table, [STEP], layers, floors, scored)
    return Measured(table, metrics, {"split": scored, "floor": floors[scored], "trained": len(rows_of["train"]),
                                  "scored": len(rows_of[scored])})


def convergence(geometry_measured: Measured, probes_measured: Measured, task: str, study_seed: int) -> Measured:
    """Correlation over layers of cosines within sentences and accuracies of probes."""
    from finetrace.lenses.convergence.correlation import FEWEST, links
    from finetrace.lenses.convergence.stage import COLUMNS

    settings, split = ConvergenceSettings(), probes_measured.facts["split"]
    cosine = geometry_measured.table.grid(statistic=settings.cosine)[..., 0]
    accuracy = probes_measured.table.select(statistic="accuracy", split=split).averaged("step", "layer").grid()[..., 0]
    correlations = [link for link in links(cosine, accuracy, draws=settings.draws, permutations=settings.permutations,
                                           seed=seeds.derive(study_seed, "convergence", task)) if link.over == "layers"]
    table = LongTable.of_rows(({
        "step": STEP, "layer": -1, "statistic": link.kind, "of": link.of, "over": link.over, "split": split,
        **vars(link.correlation)} for link in correlations), COLUMNS)
    metrics = {f"{link.kind}/{link.of}/last": link.correlation.value for link in correlations
               if np.isfinite(link.correlation.value)}
    return Measured(table, metrics, {"cosine": cosine[0], "accuracy": accuracy[0], "few": cosine.shape[1] < FEWEST})


def calibration(answers: Answers, task: str, study_seed: int) -> Measured:
    """Whether the probabilities of the model's own head mean what they say, on the validation rows."""
    from finetrace.lenses.calibration import measures, summary

    settings, seed = CalibrationSettings(), seeds.derive(study_seed, "calibration", task)
    fitted = measures.temperature(answers.logits, answers.labels)
    rows, bins = summary.temperature_rows(STEP, SPLIT, fitted, len(answers.labels)), {}
    for scaled in (False, True):
        bins[scaled], ends = summary.measure(
            answers.logits, answers.labels, answers.sentences, fitted.value if scaled else 1.0, bins=settings.bins,
            groups=settings.groups, seed=seed)
        rows += summary.rows((STEP, SPLIT, scaled), bins[scaled], ends)
    table = LongTable.of_rows(rows, summary.COLUMNS)
    return Measured(table, summary.metrics(table, [SPLIT], STEP),
                    {"bins": bins[False], "examples": len(answers.labels)})


def similarity_within(hidden: HiddenStates, task: str, study_seed: int) -> Measured:
    """How like the layers of one model are, each against each."""
    from finetrace.lenses.similarity import summary, work

    settings, seed, rows = SimilaritySettings(), seeds.derive(study_seed, "similarity", task), {}
    for kind in work.kinds_of(hidden, settings):
        sentences, items = work.candidates(hidden, kind)
        work.enough(len(items), kind, f"--task {task}")
        chosen, groups = summary.choose(sentences, settings.rows, settings.groups, seed)
        load = work.loader(hidden, kind, items[chosen], groups, settings, seed)
        rows[kind] = [row for part in summary.within(load, [STEP], len(layers_of(hidden)), settings.measures,
                                                     settings.variance) for row in part]
    return Measured(summary.table(rows), {}, {"kinds": list(rows)})


def similarity_between(first: HiddenStates, second: HiddenStates, item: str, study_seed: int) -> Measured:
    """How like two models are, layer by layer and each against each; item: the comparison's name in a study."""
    from finetrace.lenses.similarity import summary, work

    settings, seed, rows = SimilaritySettings(), seeds.derive(study_seed, "comparison", item), {}
    counts = [len(layers_of(states)) for states in (first, second)]
    for kind in work.kinds_of(first, settings):
        if kind == "tokens" and not np.array_equal(first.token_ids, second.token_ids):
            continue  # the models cut the texts into different tokens
        sentences, items = work.candidates(first, kind)
        chosen, groups = summary.choose(sentences, settings.rows, settings.groups, seed)
        load_first, load_second = (work.loader(states, kind, items[chosen], groups, settings, seed)
                                   for states in (first, second))
        rows[kind] = [row for part in summary.between(load_first, load_second, [(STEP, STEP)], counts[0], counts[1],
                                                      settings.measures, settings.variance) for row in part]
    table = summary.table(rows)
    return Measured(table, summary.metrics(table, settings.measures, STEP, STEP), {"kinds": list(rows)})


def _layer(hidden: HiddenStates, kind: str, layer: int) -> np.ndarray:
    """(item, dim) of one layer; NaN or infinity is an error."""
    array = hidden.tokens(STEP) if kind == "tokens" else hidden.vectors(STEP, kind)
    return finite(np.asarray(array[layer]), hidden, STEP, kind, layer)
