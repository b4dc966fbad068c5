"""Where the right word stands among all words, by counting: no sort, no softmax over what is not asked for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


_CPU_ROWS = 128  # larger blocks leave the cache, and their memory goes back to the system each time


@dataclass(frozen=True)
class Ranks:
    """What a read-out says about facts, layer by layer.

    rank, rank_full: (layer, fact) int32, 1 + the number of words with a higher score than the object, among the
    restricted vocabulary and among all words (1 is right; of n with equal scores, the object stands behind half);
    log_prob: (layer, fact) float32, of the object among all words, in nats, at most 0 (higher is better);  top:
    (layer, fact, k) int32, ids of the k highest words of the restricted vocabulary, best first;  rank_candidates:
    (layer, fact) int32, among the words of the right type, 0 without such.
    """

    rank: np.ndarray
    rank_full: np.ndarray
    log_prob: np.ndarray
    top: np.ndarray
    rank_candidates: np.ndarray


class Ranker:
    """Ranks objects by the scores that a decoder gives; blocks of rows fit a memory budget."""

    def __init__(self, decoder: "torch.Tensor", bias: "torch.Tensor", vocabulary: np.ndarray, *, top: int = 5,
                 memory_bytes: float = 256 * 2**20):
        """decoder: (word, inner);  bias: (word,);  vocabulary: ids (word',) of the restricted vocabulary;  top: how
        many ids are kept, at most the vocabulary's size.
        """
        import torch

        words, device = len(decoder), decoder.device
        inside = np.zeros(words, dtype=bool)
        if len(vocabulary) == 0 or vocabulary.min() < 0 or vocabulary.max() >= words:
            raise ValueError(f"the restricted vocabulary needs ids from 0 to {words - 1}")
        inside[vocabulary] = True
        order = np.concatenate([np.flatnonzero(inside), np.flatnonzero(~inside)])
        self.order = torch.from_numpy(order).to(device)  # restricted words first: their scores are then one slice
        self.place = torch.empty_like(self.order)
        self.place[self.order] = torch.arange(words, device=device)
        self.size = int(inside.sum())
        self.decoder, self.bias = decoder[self.order].T.contiguous(), bias[self.order]
        self.top = min(top, self.size)
        rows = int(memory_bytes // (3 * words * decoder.element_size()))  # scores, their exponentials, comparisons
        self.rows = max(1, min(rows, _CPU_ROWS) if device.type == "cpu" else rows)

    def __call__(self, inner: "torch.Tensor", gold: np.ndarray, candidates: "Candidates | None" = None) -> Ranks:
        """inner: (layer, fact, inner) states as the decoder reads them;  gold: (fact,) ids, all in the restricted
        vocabulary."""
        import torch

        layers, facts = inner.shape[:2]
        rows = inner.reshape(layers * facts, -1)
        gold_places = self.place[torch.from_numpy(gold).to(rows.device)].repeat(layers)
        if facts and int(gold_places.max()) >= self.size:
            raise ValueError("an object is not in the restricted vocabulary")
        blocks = [self._block(rows[start:start + self.rows], gold_places[start:start + self.rows],
                              np.arange(start, min(start + self.rows, len(rows))) % facts, candidates)
                  for start in range(0, len(rows), self.rows)]
        joined = [np.concatenate(part).reshape(layers, facts, *part[0].shape[1:]) for part in zip(*blocks, strict=True)]
        return Ranks(*joined)

    def _block(self, rows: "torch.Tensor", gold_places: "torch.Tensor", facts: np.ndarray,
               candidates: "Candidates | None",
               ) -> tuple[np.ndarray, ...]:
        import torch

        scores = torch.addmm(self.bias, rows, self.decoder)
        gold_score = scores.gather(1, gold_places[:, None])
        higher, equal = scores > gold_score, scores == gold_score
        if not equal.any(dim=1).all():
            raise ValueError("scores of words are NaN: the weights are, or the states that are read")
        before, full = (_rank_behind(higher[:, :size], equal[:, :size]) for size in (self.size, scores.shape[1]))
        log_prob = gold_score[:, 0] - scores.logsumexp(dim=1)
        top = self.order[scores[:, :self.size].topk(self.top, dim=1).indices]
        rank_in_type = np.zeros(len(rows), dtype=np.int32)
        if candidates is not None:
            sets = candidates.set_of_fact[facts]
            for number in np.unique(sets[sets >= 0]):
                at = np.flatnonzero(sets == number)
                columns = self.place[torch.from_numpy(candidates.sets[number]).to(rows.device)]
                inside = torch.from_numpy(at).to(rows.device)[:, None], columns
                rank_in_type[at] = _rank_behind(higher[inside], equal[inside]).cpu().numpy()
        return (before.int().cpu().numpy(), full.int().cpu().numpy(), log_prob.float().cpu().numpy(),
                top.int().cpu().numpy(), rank_in_type)


def _rank_behind(higher: "torch.Tensor", equal: "torch.Tensor") -> "torch.Tensor":
    """Ranks from 1 on, (row,): what is higher stands before, and half of what is equal, the object itself included."""
    import torch

    ahead, tied = (part.view(torch.int8).sum(dim=1, dtype=torch.int32) for part in (higher, equal))  # half the time
    return 1 + ahead + tied // 2


@dataclass(frozen=True)
class Candidates:
    """Words of the right type. sets: distinct arrays of ids;  set_of_fact: (fact,) int64, which of them is a fact's,
    -1 for none."""

    sets: list[np.ndarray]
    set_of_fact: np.ndarray

    @classmethod
    def of_facts(cls, candidates: list[np.ndarray | None]) -> "Candidates":
        """From one array of ids, or None, per fact."""
        numbers: dict[bytes, int] = {}
        sets: list[np.ndarray] = []
        set_of_fact = np.full(len(candidates), -1, dtype=np.int64)
        for fact, ids in enumerate(candidates):
            if ids is not None:
                key = np.asarray(ids, dtype=np.int64).tobytes()
                if key not in numbers:
                    numbers[key] = len(sets)
                    sets.append(np.asarray(ids, dtype=np.int64))
                set_of_fact[fact] = numbers[key]
        return cls(sets, set_of_fact)

    def take(self, facts: np.ndarray) -> "Candidates":
        """Those of some facts, in the given order."""
        return Candidates(self.sets, self.set_of_fact[facts])
