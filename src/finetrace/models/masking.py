"""Which words a masked language model has to predict (Devlin et al. 2019, section 3.1). A function of texts, settings
and the generator: a step's generator comes from seed and step, so a resumed training draws the same masks."""

import numpy as np

IGNORED = -100  # the target where nothing is to be predicted


def mask_words(ids: np.ndarray, special: np.ndarray, mask_id: int, stand_ins: np.ndarray, rate: float, replace: float,
               generator: np.random.Generator, words: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Choose words to predict: (inputs, targets), both (sentence, token) int64.

    ids: (sentence, token) int64;  special: (sentence, token) bool, tokens never chosen;  stand_ins: (word,) int64, ids
    that may stand in as random words;  rate: share of the tokens to predict;  replace: of them, share replaced by
    mask_id; half of the rest become random words, half stay.  words: (sentence, token) int64, where given, the number
    of each token's word in its sentence: its tokens are then chosen together, each word with probability `rate`; what
    replaces them is drawn per token, as in BERT's whole-word masking. Targets are `IGNORED` where nothing is to be
    predicted. Every sentence has at least one word to predict, unless all its tokens are special.
    """
    draw = generator.random(ids.shape)
    if words is not None:
        draw = np.take_along_axis(draw, first_tokens(words), axis=1)
    draw[special] = 2.0
    chosen = draw < rate
    if words is None:
        chosen[np.arange(len(ids)), draw.argmin(axis=1)] |= ~special.all(axis=1)
    else:
        chosen |= (draw == draw.min(axis=1, keepdims=True)) & ~special
    how = generator.random(ids.shape)
    inputs = np.where(chosen & (how < replace), mask_id, ids)
    random_words = chosen & (how >= replace) & (how < (1 + replace) / 2)
    inputs = np.where(random_words, generator.choice(stand_ins, ids.shape), inputs)
    return inputs, np.where(chosen, ids, IGNORED)


def first_tokens(words: np.ndarray) -> np.ndarray:
    """For each token, the position of the first token of its word: (sentence, token) int64.

    words: (sentence, token) int64; a word is a run of tokens with one number.
    """
    starts = np.ones(words.shape, dtype=bool)
    starts[:, 1:] = words[:, 1:] != words[:, :-1]
    return np.maximum.accumulate(np.where(starts, np.arange(words.shape[1]), 0), axis=1)
