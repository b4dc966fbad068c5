"""How similar are two trajectories, layer by layer -> comparisons/NAME/"""

import logging
from pathlib import Path

import numpy as np

from finetrace import seeds
from finetrace.errors import FinetraceError
from finetrace.lenses.comparison.settings import ComparisonSettings
from finetrace.lenses.similarity.settings import SimilaritySettings
from finetrace.pipeline.lens import Record, write_lens
from finetrace.pipeline.stage import Stage, write_curves
from finetrace.store.files import write_json
from finetrace.store.hidden import HiddenStates, fit_threads, read_hidden
from finetrace.store.manifest import Manifest
from finetrace.store.tables import write_table

log = logging.getLogger("finetrace")


def main(stage: Stage) -> None:
    from finetrace.lenses.comparison.figures import draw

    entry, settings = stage.settings("comparison", ComparisonSettings), stage.settings("similarity", SimilaritySettings)
    first, second = (read_hidden(stage.layout.place(side) / "hidden") for side in (entry.first, entry.second))
    folder = stage.layout.comparison(stage.item)
    seed = seeds.derive(stage.seed, "comparison", stage.item)
    inputs = {hidden.folder: hidden.folder for hidden in (first, second)}
    manifest = stage.manifest("lens", inputs, {"rows": seed}, outs=(folder,))
    write_lens(stage, folder, manifest,
               lambda out: _measure(stage, (first, second), entry, settings, seed, manifest, out), draw)


def _measure(stage: Stage, sides: tuple[HiddenStates, HiddenStates], entry: ComparisonSettings,
             settings: SimilaritySettings, seed: int, manifest: Manifest, out: Path) -> Record:
    from finetrace.lenses.similarity import summary, work

    first, second = sides
    fit_threads(first)
    rows = _matched_rows(first, second, entry)
    pairs = _checkpoints(first.steps, second.steps)
    layers = [hidden.manifest.facts["layers"] for hidden in sides]
    rows_of, counts = {}, {}
    for kind in work.kinds_of(first, settings):
        matched = _matched(first, second, rows, kind, stage.label)
        if matched is None:
            continue
        sentences, items = matched
        work.enough(len(sentences), kind, f"comparisons.{stage.item}")
        chosen, groups = summary.choose(sentences, settings.rows, settings.groups, seed)
        counts[kind] = len(chosen)
        width = max(hidden.width if kind == "span" else hidden.manifest.facts["dim"] for hidden in sides)
        work.announce(stage.label, kind, f"{len(pairs)} pairs of checkpoints x {layers[0]} and {layers[1]} layers x "
                      f"{len(chosen):,} examples", len(chosen), width, settings)
        load_first, load_second = (work.loader(hidden, kind, places[chosen], groups, settings, seed)
                                   for hidden, places in zip(sides, items, strict=True))
        between = summary.between(load_first, load_second, pairs, layers[0], layers[1], settings.measures,
                                  settings.variance)
        total = layers[1] * (len(pairs) + min(2, len(pairs)) * (layers[0] - 1))
        rows_of[kind] = work.watched(between, total, kind)
    if not rows_of:
        raise _refusal(entry, "their tokens differ; add cls to similarity.representations")
    table = summary.table(rows_of)
    metrics = summary.metrics(table, settings.measures, pairs[0][1], pairs[0][0], when="first")
    metrics |= summary.metrics(table, settings.measures, pairs[-1][1], pairs[-1][0], when="last")
    write_table(out / "table.parquet", table.columns())
    write_json(out / "metrics.json", metrics)
    write_curves(out / "curves.csv", summary.curves(table, settings.measures, [(b, a) for a, b in pairs]))
    manifest.facts = {f"{kind}_examples": count for kind, count in counts.items()}
    return {"name": stage.item, "first": entry.first, "second": entry.second, "pairs": pairs, "counts": counts,
            "measures": settings.measures, "table": summary.recorded(table)}


def _refusal(entry: ComparisonSettings, reason: str) -> FinetraceError:
    return FinetraceError(f"params.yaml: comparisons: {entry.first} and {entry.second} cannot be compared: {reason}")


def _matched_rows(first: HiddenStates, second: HiddenStates, entry: ComparisonSettings) -> np.ndarray:
    """Rows of the same examples in both: (example, 2) int64. Refuses examples with different labels."""
    places = {key: row for row, key in enumerate(zip(second.splits.tolist(), second.example_ids.tolist(), strict=True))}
    keys = zip(first.splits.tolist(), first.example_ids.tolist(), strict=True)
    common = [(row, places[key]) for row, key in enumerate(keys) if key in places]
    rows = np.array(common, dtype=np.int64).reshape(-1, 2)
    if len(rows) < 4:
        raise _refusal(entry, f"they share {len(rows)} examples, 4 are needed; extract the same rows of both "
                              "(hidden.rows)")
    wrong = np.flatnonzero(first.labels[rows[:, 0]] != second.labels[rows[:, 1]])
    if first.label_names != second.label_names or len(wrong):
        row = rows[wrong[0], 0] if len(wrong) else None
        where = "" if row is None else f", e.g. example {first.example_ids[row]} of {first.splits[row]}"
        raise _refusal(entry, f"their examples have different labels{where}; they were made from different data, run "
                              "both again")
    return rows


def _matched(first: HiddenStates, second: HiddenStates, rows: np.ndarray, kind: str, label: str
             ) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]] | None:
    """The sentence of each common example (example,) and its places in both arrays; None where tokens differ."""
    if kind != "tokens":
        return first.sentence_codes(rows[:, 0]), (rows[:, 0], rows[:, 1])
    empty = np.empty(0, dtype=np.int64)
    sentences, places = [empty], ([empty], [empty])
    sentence_numbers = [{row: number for number, row in enumerate(hidden.sentence_rows.tolist())}
                        for hidden in (first, second)]
    for number, (a, b) in enumerate(rows.tolist()):
        if a in sentence_numbers[0] and b in sentence_numbers[1]:
            spans = [np.arange(*hidden.offsets[[at[row], at[row] + 1]])
                     for hidden, at, row in ((first, sentence_numbers[0], a), (second, sentence_numbers[1], b))]
            if not np.array_equal(first.token_ids[spans[0]], second.token_ids[spans[1]]):
                log.info("%s: tokens: left out, the two models cut the texts into different tokens", label)
                return None
            words = ~first.special[spans[0]]
            sentences.append(np.full(words.sum(), number))
            for side, span in zip(places, spans, strict=True):
                side.append(span[words])
    return np.concatenate(sentences), (np.concatenate(places[0]), np.concatenate(places[1]))


def _checkpoints(first: list[int], second: list[int]) -> list[tuple[int, int]]:
    """Pairs (step of the first, of the second) that are compared: both first ones, the common ones, both last ones."""
    common = sorted(set(first[1:-1]) & set(second[1:-1]))
    return list(dict.fromkeys([(first[0], second[0]), *((step, step) for step in common), (first[-1], second[-1])]))
