"""How much token vectors share a direction, across sentences and within them (Ethayarajh 2019), in closed form.

Sentences are ragged: tokens (token, dim) stacked, `offsets` (sentence + 1,) where each sentence begins and the last
one ends.
"""

import numpy as np

from finetrace.lenses.geometry.statistics import unit_vectors


def anisotropy(tokens: np.ndarray, offsets: np.ndarray) -> float:
    """Mean cosine over ALL pairs of tokens from different sentences: 0 = no common direction, 1 = one direction only.

    The published estimate samples such pairs; with unit vectors summed per sentence, U_s, the exact mean is
    (|sum U_s|^2 - sum |U_s|^2) / (N^2 - sum n_s^2). NaN with fewer than two sentences that have tokens.
    """
    sums, counts = sentence_sums(unit_vectors(np.asarray(tokens, dtype=np.float64)), offsets)
    return float(weighted_anisotropy(sums, counts, np.ones((1, len(counts))))[0])


def weighted_anisotropy(sums: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`anisotropy` of resampled sentences: (draw,), each sentence counted weights (draw, sentence) times.

    sums: (sentence, dim) sums of unit vectors;  counts: (sentence,) tokens. A sentence is not compared with its own
    copies.
    """
    inner = sums @ sums.T
    squared = np.square(weights)
    cosines = np.einsum("ws,ws->w", weights @ inner, weights) - squared @ np.diagonal(inner)
    pairs = np.square(weights @ counts) - squared @ np.square(counts)
    return np.divide(cosines, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def intra_sentence_similarity(tokens: np.ndarray) -> float:
    """Mean cosine of a sentence's tokens (token, dim) with their mean vector (Ethayarajh 2019, IntraSim): -1 .. 1.

    1 for equal tokens; tokens without a common direction give about 1 / sqrt(token). NaN without tokens.
    """
    tokens = np.asarray(tokens, dtype=np.float64)
    return float((unit_vectors(tokens) @ unit_vectors(tokens.mean(axis=0))).mean()) if len(tokens) else float("nan")


def self_similarity(tokens: np.ndarray, token_ids: np.ndarray, sentences: np.ndarray, contexts: int = 5) -> np.ndarray:
    """Mean cosine between a token type's occurrences in different sentences (Ethayarajh 2019, SelfSim): (type,).

    tokens: (token, dim);  token_ids, sentences: (token,) its type and its sentence. Only types found in at least
    `contexts` sentences count (5 as published). 1 = the same vector in every context, as in a static embedding.
    Types ascend; the result is empty when no type is frequent enough.
    """
    return self_similarity_without(type_sums(tokens, token_ids, sentences), contexts)


def type_sums(tokens: np.ndarray, token_ids: np.ndarray, sentences: np.ndarray
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sums of unit vectors per (type, sentence), types ascending: sums (piece, dim), count, type and sentence
    (piece,)."""
    order = np.lexsort((sentences, token_ids))
    types, places = np.asarray(token_ids)[order], np.asarray(sentences)[order]
    begins = np.flatnonzero(np.r_[len(types) > 0, (types[1:] != types[:-1]) | (places[1:] != places[:-1])])
    counts = np.diff(np.r_[begins, len(types)])
    units = unit_vectors(np.asarray(tokens))[order]
    sums = np.add.reduceat(units, begins, axis=0) if len(begins) else units[:0]
    return sums, counts, types[begins], places[begins]


def self_similarity_without(pieces: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], contexts: int = 5,
                            left_out: np.ndarray | None = None) -> np.ndarray:
    """`self_similarity` from `type_sums`; left_out: (piece,) bool, pieces that do not count."""
    sums, counts, types, _ = pieces
    if left_out is not None:
        sums, counts, types = sums[~left_out], counts[~left_out], types[~left_out]
    begins = np.flatnonzero(np.r_[len(types) > 0, types[1:] != types[:-1]])
    if not len(begins):
        return np.empty(0)
    enough = np.diff(np.r_[begins, len(types)]) >= max(2, contexts)
    total = np.add.reduceat(sums, begins, axis=0, dtype=np.float64)
    self_products = np.add.reduceat(np.einsum("pd,pd->p", sums, sums, dtype=np.float64), begins)
    pairs = np.square(np.add.reduceat(counts, begins)) - np.add.reduceat(np.square(counts), begins)
    cosines = np.einsum("td,td->t", total, total) - self_products
    return np.clip(cosines[enough] / pairs[enough], -1.0, 1.0)


def sentence_sums(values: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums over each sentence's tokens: (token, dim) -> (sentence, dim) float64, and its token counts (sentence,)
    float64."""
    offsets = np.asarray(offsets, dtype=np.int64)
    counts = np.diff(offsets)
    if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(values) or (counts < 0).any():
        raise ValueError(f"offsets must ascend from 0 to the number of tokens, {len(values)}")
    sums = np.zeros((len(counts), values.shape[1]))
    filled = np.flatnonzero(counts)  # reduceat would take a following token for an empty sentence
    if len(filled):
        sums[filled] = np.add.reduceat(values, offsets[filled], axis=0, dtype=np.float64)
    return sums, counts.astype(np.float64)
