"""How far a bag of words gets on a task: the floor that a language model has to beat."""

from __future__ import annotations

from finetrace.data.world.tasks import Row


def bag_of_words_accuracy(rows: dict[str, list[Row]], split: str = "test") -> float:
    """Accuracy of a linear classifier that knows which words occur, but not in which order.

    Features are word counts; for pairs, the counts of both texts, their product word by word, and the number of
    shared words. Fitted by logistic regression on the training rows (on the other split, if there are none).

    Args:
        rows: split name -> rows, as `task_rows` returns them.
        split: the split to score.

    Returns:
        Share of right answers, 0 to 1, higher is better; 1 / number of classes is chance.
    """
    import numpy as np
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    if "train" not in rows:
        raise ValueError("bag_of_words_accuracy: rows have no split 'train'; add the training rows of the source task")
    counter = CountVectorizer(token_pattern=r"\S+").fit(
        [row["text_a"] + " " + (row["text_b"] or "") for row in rows["train"]]
    )

    def features(part: list[Row]) -> csr_matrix:
        """Sparse feature matrix (example, feature)."""
        first = counter.transform([row["text_a"] for row in part])
        if part[0]["text_b"] is None:
            return first
        second = counter.transform([row["text_b"] for row in part])
        both = first.multiply(second)
        return hstack([first, second, both, csr_matrix(both.sum(axis=1))]).tocsr()

    labels = {name: np.array([row["label"] for row in rows[name]]) for name in ("train", split)}
    model = LogisticRegression(max_iter=1_000).fit(features(rows["train"]), labels["train"])
    return float(model.score(features(rows[split]), labels[split]))
