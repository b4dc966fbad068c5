"""What every training answers on the examples of its task, for the page's comparison of two of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from finetrace.atlas.collect import Entry
from finetrace.atlas.packing import pack
from finetrace.atlas.paired import flips, texts_of
from finetrace.figures.style import short
from finetrace.layout import Layout
from finetrace.store.manifest import NAME
from finetrace.store.predictions import Predictions, read_predictions

NOT_ASKED = 65535
"""Stands for the answer of a training that was not asked about an example."""
LONGEST = 400  # characters of a text that the page shows


@dataclass
class Answers:
    """The examples of a task that any of its trainings was asked about, in rows, and what they said.

    said: place -> (row,) uint16 class with the kept weights;  since: place -> (row,) int32 step of the first
    checkpoint from which on that answer stands.
    """

    label_names: list[str]
    rows: dict[tuple[str, int], int] = field(default_factory=dict)
    """Set and example's number -> row."""
    labels: list[int] = field(default_factory=list)
    sentences: list[int] = field(default_factory=list)
    said: dict[str, np.ndarray] = field(default_factory=dict)
    since: dict[str, np.ndarray] = field(default_factory=dict)


def packed_answers(entries: Sequence[Entry], layout: Layout) -> Iterator[tuple[str, str]]:
    """Task and packed answers, for every task on which predictions are finished. Columns: set, example, label,
    sentence (examples of words share sentences), and `said PLACE`, `since PLACE`; the head has label_names, sets,
    texts and places. Trainings that tell other classes apart than the first are left out."""
    by_task: dict[str, list[Entry]] = {}
    for entry in entries:
        if (entry.folder / "predictions" / NAME).is_file():
            by_task.setdefault(entry.task, []).append(entry)
    for task, members in by_task.items():
        yield task, _packed(_answers(members), task, layout)


def _answers(entries: Sequence[Entry]) -> Answers:
    opened = {entry.place: read_predictions(entry.folder / "predictions") for entry in entries}
    of_task = Answers(next(iter(opened.values())).label_names)
    opened = {place: predictions for place, predictions in opened.items()
              if predictions.label_names == of_task.label_names}
    at = {place: _rows(of_task, predictions) for place, predictions in opened.items()}
    for place, predictions in opened.items():
        answers = np.stack([np.asarray(predictions.logits(step)).argmax(1) for step in predictions.steps])
        kept = predictions.steps.index(predictions.kept_step)
        said, since = np.full(len(of_task.rows), NOT_ASKED, np.uint16), np.full(len(of_task.rows), -1, np.int32)
        said[at[place]] = answers[kept]
        since[at[place]] = np.array(predictions.steps, np.int32)[flips(answers[:kept + 1])]
        of_task.said[place], of_task.since[place] = said, since
    return of_task


def _rows(of_task: Answers, predictions: Predictions) -> np.ndarray:
    """(example,) where the examples of a training stand; new ones are added."""
    at = np.empty(len(predictions.labels), np.int64)
    for i, key in enumerate(zip(predictions.sets.tolist(), predictions.example_ids.tolist(), strict=True)):
        if key not in of_task.rows:
            of_task.rows[key] = len(of_task.rows)
            of_task.labels.append(int(predictions.labels[i]))
            of_task.sentences.append(int(predictions.sentences[i]))
        at[i] = of_task.rows[key]
    return at


def _packed(of_task: Answers, task: str, layout: Layout) -> str:
    sets = list(dict.fromkeys(name for name, _ in of_task.rows))
    texts = {name: texts_of(layout, task, name) for name in sets}
    columns: dict[str, np.ndarray] = {
        "set": np.array([sets.index(name) for name, _ in of_task.rows], np.uint16),
        "example": np.array([example for _, example in of_task.rows], np.int32),
        "label": np.array(of_task.labels, np.uint16),
        "sentence": np.array(of_task.sentences, np.int32),
    }
    for place in of_task.said:
        columns |= {f"said {place}": of_task.said[place], f"since {place}": of_task.since[place]}
    return pack(columns, label_names=of_task.label_names, sets=sets, places=list(of_task.said),
                texts=[shortened(texts[name].get(example, "")) for name, example in of_task.rows])


def shortened(text: str) -> str:
    """A text as the page shows it. Of a pair, "first | second", both are cut, so that something of each is seen."""
    if len(text) <= LONGEST:
        return text
    first, bar, second = text.rpartition(" | ")
    if not bar:
        return short(text, LONGEST)
    rest = short(second, max(LONGEST // 2, LONGEST - len(first) - len(bar)))
    return f"{short(first, LONGEST - len(bar) - len(rest))}{bar}{rest}"
