"""What the stages similarity and comparison share: which examples are compared, their representations, log lines."""

import functools
import logging
from collections.abc import Callable, Iterable

import numpy as np

from finetrace.errors import FinetraceError
from finetrace.lenses.similarity.measures import Representation, most_directions, represent
from finetrace.lenses.similarity.settings import SimilaritySettings
from finetrace.lenses.similarity.summary import Row
from finetrace.progress import Progress
from finetrace.store.hidden import HiddenStates, finite

log = logging.getLogger("finetrace")


def kinds_of(hidden: HiddenStates, settings: SimilaritySettings) -> list[str]:
    """What is compared: in tasks of words, the words stand for cls and mean."""
    return list(dict.fromkeys(kind if kind == "tokens" else hidden.kind(kind) for kind in settings.representations))


def candidates(hidden: HiddenStates, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The examples of a kind: the sentence of each (example,), and its place in the array on disk (example,)."""
    if kind != "tokens":
        return hidden.sentence_codes(np.arange(len(hidden.labels))), np.arange(len(hidden.labels))
    items = np.flatnonzero(~hidden.special)
    return np.repeat(hidden.sentence_rows, np.diff(hidden.offsets))[items], items


def enough(count: int, kind: str, where: object) -> None:
    """Raises FinetraceError, naming the setting, for too few examples; where: a folder or an entry of params.yaml."""
    if count < 4:
        key = "token_rows" if kind == "tokens" else "rows"
        raise FinetraceError(f"{where}: {count} examples ({kind}) are too few to compare, 4 are needed; raise "
                             f"hidden.{key} in params.yaml or take {kind} out of similarity.representations")


def loader(hidden: HiddenStates, kind: str, items: np.ndarray, groups: np.ndarray, settings: SimilaritySettings,
           seed: int) -> Callable[[int, int], Representation]:
    """A function (step, layer) -> the representation of these items. Each layer is checked, once."""
    @functools.cache
    def check(step: int, layer: int) -> None:
        finite(arrays(step)[layer], hidden, step, kind, layer)

    def arrays(step: int) -> np.ndarray:
        return hidden.tokens(step) if kind == "tokens" else hidden.vectors(step, kind)

    def load(step: int, layer: int) -> Representation:
        check(step, layer)
        return represent(arrays(step)[layer][items].astype(np.float64), groups, settings.rsa_rows, seed)

    return load


def announce(label: str, kind: str, compared: str, examples: int, dim: int, settings: SimilaritySettings) -> None:
    """Log what is about to be computed by the stage `label`, and whether CCA can use all directions."""
    directions = most_directions(examples)
    capped = f"; svcca and pwcca use at most {directions} of {dim} directions" if directions < dim else ""
    log.info("%s: %s: %s, %s%s", label, kind, compared, ", ".join(settings.measures), capped)


def watched(comparisons: Iterable[list[Row]], total: int, kind: str) -> list[Row]:
    """The rows of all comparisons, of which there are `total`, while a line now and then says how far they are."""
    rows, progress = [], Progress(total, f"similarity of {kind}", unit="comparison")
    for part in comparisons:
        rows += part
        progress.advance("(checkpoint {step} layer {layer} against checkpoint {other_step} layer {other_layer})".format(
            **part[0]))
    progress.close()
    return rows
