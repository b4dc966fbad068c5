"""What figures show of the lens' table, as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetrace.lenses.cloze.summary import UNION, Facts, chance, course, has_control

RELATIONS = 12


@dataclass(frozen=True)
class View:
    """One corpus in the table. steps: checkpoints;  layers: how many, embeddings included;  vocabulary: among which words objects
    are ranked."""

    table: pa.Table
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
        return {statistic: {layer: self._course("", readout, layer, statistic) for layer in (*range(self.layers), UNION)}
                for statistic in ("p_at_1", "p_at_10")}

    def control(self, readout: str, facts: Facts) -> dict[str, Any] | None:
        """P@1 of the last layer, of facts that can be known and of held-out ones, (step, 3) each: among words of the right type
        where facts have them, and chance there, else NaN; None without held-out facts."""
        if not has_control(facts, self.corpus):
            return None
        guess, last = chance(facts, self.corpus, True), self.layers - 1
        words = "candidates" if np.isfinite(guess) else self.vocabulary
        return {"known": self._course("", readout, last, "p_at_1", words), "chance": guess,
                "held_out": self._course("", readout, last, "p_at_1", words, True)}

    def readouts(self, names: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """Statistic -> read-out -> (layer, 3) at the last checkpoint; read-outs that it lacks are left out."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for statistic in ("p_at_1", "p_at_10"):
            for name in names:
                values = np.stack([self._course("", name, layer, statistic)[-1] for layer in range(self.layers)])
                if np.isfinite(values[:, 0]).any():
                    found.setdefault(statistic, {})[name] = values
        return found

    def relations(self, readout: str, facts: Facts) -> dict[str, np.ndarray]:
        """Relation with its number of facts -> (layer, step) P@1, the `RELATIONS` with most facts, or the corpus alone."""
        counts = {r: 0 for c, r in zip(facts.corpora, facts.relations, strict=True) if c == self.corpus}
        for corpus, relation, out in zip(facts.corpora, facts.relations, facts.held_out, strict=True):
            if corpus == self.corpus and not out:
                counts[relation] += 1
        most = sorted((r for r in counts if counts[r]), key=lambda r: -counts[r])[:RELATIONS]
        if len(counts) == 1:
            most = [""]
        titles = {r: f"{r or self.corpus} ({counts[r] if r else sum(counts.values()):,})" for r in most}
        return {titles[r]: np.stack([self._course(r, readout, layer, "p_at_1")[:, 0] for layer in range(self.layers)])
                for r in most}

    def changes(self, readout: str) -> dict[str, np.ndarray]:
        """learned, kept, lost of the last layer -> (step,) shares: from the checkpoint before, then from first to last."""
        last, found = self.layers - 1, {}
        for statistic in ("learned", "kept", "lost"):
            each = self._course("", readout, last, statistic)[1:, 0]
            whole = self._course("", readout, last, f"{statistic}_since_first")[-1:, 0]
            found[statistic] = np.concatenate([each, whole])
        return found

    def _course(self, relation: str, readout: str, layer: int, statistic: str, vocabulary: str | None = None,
                held_out: bool = False) -> np.ndarray:
        return course(self._part(relation, readout, held_out), self.steps, layer=layer, statistic=statistic,
                      vocabulary=vocabulary or self.vocabulary)

    def _part(self, relation: str, readout: str, held_out: bool) -> pa.Table:
        cache = self.__dict__.setdefault("_parts", {})
        if (relation, readout, held_out) not in cache:
            mask = pc.and_(pc.equal(self.table["corpus"], self.corpus), pc.equal(self.table["relation"], relation))
            mask = pc.and_(mask, pc.equal(self.table["readout"], readout))
            cache[relation, readout, held_out] = self.table.filter(pc.and_(mask, pc.equal(self.table["held_out"], held_out)))
        return cache[relation, readout, held_out]
