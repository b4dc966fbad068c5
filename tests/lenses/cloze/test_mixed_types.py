"""Relations whose facts are of several types, or some of none."""

import numpy as np

from finetrace.lenses.cloze.metrics import estimates, groups


def test_each_type_has_the_facts_of_its_own() -> None:
    types = ["1-1", "N-1", "N-1", "", "N-M"]
    found = groups(["own"] * 5, ["a", "a", "b", "b", "a"], types, np.zeros(5, dtype=bool))
    of_types = {one.relation: [part.tolist() for part in one.parts] for one in found
                if one.relation.startswith("type:")}
    assert of_types == {"type:1-1": [[0]], "type:N-1": [[1], [2]], "type:N-M": [[4]]}
    values = np.array([[1.0], [0.0], [1.0], [0.0], [1.0]])
    scores = estimates(found, lambda numbers: [values[numbers]], np.array([True]))
    assert {one.relation: float(score.value[0]) for one, score in zip(found, scores, strict=True)} == {
        "": (2 / 3 + 1 / 2) / 2, "type:1-1": 1.0, "type:N-1": 0.5, "type:N-M": 1.0, "a": 2 / 3, "b": 0.5}
