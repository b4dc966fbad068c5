"""How far a bag of words gets on a task: the floor that a language model has to beat."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from finetrace.data.annotated import marked_words
from finetrace.seeds import generator

LARGEST = 20_000  # training rows used; more change the floor little and cost minutes


def floors(tables: dict[str, pa.Table]) -> dict[str, float]:
    """Accuracy on validation of guessing the most frequent class and of a bag of words: what a model has to beat.

    In tasks of words the bag holds the marked words only: how far they tell the class without their sentence.
    """
    if "train" not in tables or len(tables["train"]["label"].unique()) < 2:
        return {}
    train, validation = (_bag(tables[s]) for s in ("train", "validation"))
    if len({r["label"] for r in train}) < 2:
        return {}
    frequent = Counter(tables["train"]["label"].to_pylist()).most_common(1)[0][0]
    return {"bag_of_words_accuracy": round(bag_of_words_accuracy(train, validation), 6),
            "majority_accuracy": round(sum(r["label"] == frequent for r in validation) / len(validation), 6)}


def bag_of_words_accuracy(train: Sequence[dict[str, Any]], evaluation: Sequence[dict[str, Any]]) -> float:
    """Accuracy of a linear classifier that knows which words occur, but not in which order.

    Features are word counts; for pairs, the counts of both texts, their product word by word, and the number of shared
    words. Logistic regression (L2, C = 1; Newton, because counts of very different size stall
    L-BFGS). Range 0 to 1, higher is better; 1 / classes is chance.

    train, evaluation: rows with text_a, text_b (or None) and label.
    """
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    if len(train) > LARGEST:  # drawn, not every n-th: classes may alternate
        train = [train[i] for i in np.sort(generator(0, "bag of words").permutation(len(train))[:LARGEST])]
    counter = CountVectorizer(token_pattern=r"\S+").fit([f"{r['text_a']} {r['text_b'] or ''}" for r in train])

    def features(rows: Sequence[dict[str, Any]]) -> csr_matrix:
        first = counter.transform([r["text_a"] for r in rows])
        if rows[0]["text_b"] is None:
            return first
        second = counter.transform([r["text_b"] for r in rows])
        products = first.multiply(second).tocsr()
        return hstack([first, second, products, products.sum(axis=1)]).tocsr()

    model = LogisticRegression(solver="newton-cg", max_iter=200)
    model.fit(features(train), np.array([r["label"] for r in train]))
    return float(model.score(features(evaluation), np.array([r["label"] for r in evaluation])))


def _bag(table: pa.Table) -> list[dict[str, Any]]:
    """Rows for the floor; of large tasks of words as many as it uses, because each row holds its whole sentence."""
    if "words" not in table.column_names:
        return table.select(["text_a", "text_b", "label"]).to_pylist()
    chosen = generator(0, "bag of words").permutation(table.num_rows)[:LARGEST]
    return marked_words(table, np.sort(chosen))
