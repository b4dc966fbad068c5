"""What figures show of the lens' table, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetrace.lenses.cloze.summary import UNION, Facts, chance, has_control
from finetrace.longtable import LongTable

RELATIONS = 12
CHANGES = ("learned", "kept", "lost")


@dataclass(frozen=True)
class View:
    """One corpus in the table. steps: checkpoints;  layers: how many, embeddings included;  vocabulary: among which
    words objects are ranked."""

    table: LongTable
    steps: Sequence[int]
    layers: int
    vocabulary: str
    corpus: str

    def drawn(self, readouts: Sequence[str], facts: Facts) -> dict[str, Any]:
        """All that figures show: layers, control, relations and changes of the first read-out, and all read-outs
        compared; changes is None with one checkpoint."""
        first = readouts[0]
        return {"layers": self.by_layer(first), "control": self.control(first, facts),
                "readouts": self.readouts(readouts), "relations": self.relations(first, facts),
                "changes": self.changes(first) if len(self.steps) > 1 else None}

    def by_layer(self, readout: str) -> dict[str, dict[int, np.ndarray]]:
        """Statistic (p_at_1, p_at_10) -> layer (-1: any) -> (step, 3) value, low, high."""
        layers = [*range(self.layers), UNION]
        grids = {statistic: self._select(readout).grid(self.steps, layers, statistic=statistic)
                 for statistic in ("p_at_1", "p_at_10")}
        return {statistic: {layer: grid[:, place] for place, layer in enumerate(layers)}
                for statistic, grid in grids.items()}

    def control(self, readout: str, facts: Facts) -> dict[str, Any] | None:
        """P@1 of the last layer, of facts that can be known and of held-out ones, (step, 3) each: among words of the
        right type where facts have them, and chance there, else NaN; None without held-out facts."""
        if not has_control(facts, self.corpus):
            return None
        guess = chance(facts, self.corpus, True)
        words = "candidates" if np.isfinite(guess) else self.vocabulary
        known, held_out = (self._select(readout, vocabulary=words, held_out=held_out).course(
            self.steps, layer=self.layers - 1, statistic="p_at_1") for held_out in (False, True))
        return {"known": known, "chance": guess, "held_out": held_out}

    def readouts(self, names: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """Statistic -> read-out -> (layer, 3) at the last checkpoint; read-outs that it lacks are left out."""
        courses: dict[str, dict[str, np.ndarray]] = {}
        for statistic in ("p_at_1", "p_at_10"):
            for name in names:
                values = self._select(name).grid(self.steps[-1:], range(self.layers), statistic=statistic)[0]
                if np.isfinite(values[:, 0]).any():
                    courses.setdefault(statistic, {})[name] = values
        return courses

    def relations(self, readout: str, facts: Facts) -> dict[str, np.ndarray]:
        """Relation with its number of facts -> (layer, step) P@1, the `RELATIONS` with most facts, or the corpus
        alone."""
        counts = {r: 0 for c, r in zip(facts.corpora, facts.relations, strict=True) if c == self.corpus}
        for corpus, relation, held_out in zip(facts.corpora, facts.relations, facts.held_out, strict=True):
            if corpus == self.corpus and not held_out:
                counts[relation] += 1
        largest = sorted((r for r in counts if counts[r]), key=lambda r: -counts[r])[:RELATIONS]
        if len(counts) == 1:
            largest = [""]
        titles = {r: f"{r or self.corpus} ({counts[r] if r else sum(counts.values()):,})" for r in largest}
        grids = {r: self._select(readout, relation=r).grid(self.steps, range(self.layers), statistic="p_at_1")
                 for r in largest}
        return {titles[r]: grid[..., 0].T for r, grid in grids.items()}

    def changes(self, readout: str) -> dict[str, np.ndarray]:
        """learned, kept, lost of the last layer -> (step,) shares: from the checkpoint before, then from first to
        last."""
        last = self._select(readout, layer=self.layers - 1)
        stepwise, overall = ({statistic: last.course(self.steps, statistic=statistic + ending)[:, 0]
                              for statistic in CHANGES}
                             for ending in ("", "_since_first"))
        return {statistic: np.append(stepwise[statistic][1:], overall[statistic][-1]) for statistic in CHANGES}

    def _select(self, readout: str, **where: Any) -> LongTable:
        usual = {"relation": "", "vocabulary": self.vocabulary, "held_out": False}
        return self.table.select(corpus=self.corpus, readout=readout, **usual | where)
