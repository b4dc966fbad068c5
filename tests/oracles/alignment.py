"""Words and pieces aligned character by character: what edge probing's original tools did, in quadratic time."""

import numpy as np

START = "\u2581"
"""Stands before the first character of a word, and of a piece that begins one."""


def matching_blocks(first: str, second: str) -> list[tuple[int, int, int]]:
    """(place in first, place in second, length) of the runs of equal characters on a cheapest way of editing one into
    the other.

    Levenshtein distance by dynamic programming; ends with an empty block at both ends.
    """
    rows, columns = len(first), len(second)
    cost = np.zeros((rows + 1, columns + 1), dtype=np.int64)
    cost[:, 0], cost[0] = np.arange(rows + 1), np.arange(columns + 1)
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            change = cost[i - 1, j - 1] + (first[i - 1] != second[j - 1])
            cost[i, j] = min(change, cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    blocks, i, j = [(rows, columns, 0)], rows, columns
    while i and j:
        if first[i - 1] == second[j - 1] and cost[i, j] == cost[i - 1, j - 1]:
            i, j = i - 1, j - 1
            if blocks[-1][:2] == (i + 1, j + 1) and blocks[-1][2]:
                blocks[-1] = (i, j, blocks[-1][2] + 1)
            else:
                blocks.append((i, j, 1))
        elif cost[i, j] == cost[i - 1, j - 1] + 1:
            i, j = i - 1, j - 1
        elif cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return blocks[::-1]


def incidence(parts: list[str]) -> np.ndarray:
    """(part, character) int64 of the parts joined by blanks: 1 where the character is the part's."""
    found = np.zeros((len(parts), len(" ".join(parts))), dtype=np.int64)
    place = 0
    for i, part in enumerate(parts):
        found[i, place:place + len(part)] = 1
        place += len(part) + 1
    return found


def word_to_piece(words: list[str], pieces: list[str], *, lower: bool) -> np.ndarray:
    """(word, piece) int64: how many aligned characters they share, matched ones counting twice; 0 where there is
    nothing.

    pieces: as WordPiece writes them, "##" before those that go on with a word;  lower: whether the tokenizer is
    uncased.
    """
    sources = [START + (word.lower() if lower else word) for word in words]
    targets = [piece.removeprefix("##") if piece.startswith("##") else START + piece for piece in pieces]
    first, second = " ".join(sources), " ".join(targets)
    characters = np.zeros((len(first), len(second)), dtype=np.int64)
    before = (0, 0)
    for i, j, length in matching_blocks(first, second):
        characters[before[0]:i, before[1]:j] = 1
        characters[np.arange(i, i + length), np.arange(j, j + length)] = 2
        before = (i + length, j + length)
    return incidence(sources) @ characters @ incidence(targets).T


def piece_span(table: np.ndarray, start: int, end: int) -> tuple[int, int] | None:
    """Pieces of the words from `start` up to `end`: from the first of either end word to the last; None where it has
    none."""
    found = np.flatnonzero(np.concatenate([table[start], table[end - 1]])) % table.shape[1]
    return (int(found.min()), int(found.max()) + 1) if len(found) else None
