"""The answers that the page compares: what was said, since when, on which examples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.atlas_pages import unpack
from tests.outputs import fresh, manifest

from finetrace.atlas.answers import LONGEST, NOT_ASKED, packed_answers, shortened
from finetrace.atlas.collect import Entry
from finetrace.atlas.paired import flips
from finetrace.layout import Layout
from finetrace.store.arrays import write_array
from finetrace.store.hidden import step_name
from finetrace.store.manifest import complete
from finetrace.store.tables import write_table

Make = Callable[..., Entry]
NAMES = ("no", "yes")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A training with predictions. answers: step -> answers;  rows: (set, example, label, sentence) of each."""
    def made(seed: int, answers: Mapping[int, Sequence[int]], rows: Sequence[tuple[str, int, int, int]],
             names: Sequence[str] = NAMES, kept: int | None = None, task: str = "t") -> Entry:
        folder = tmp_path / f"outputs/m/{task}/ft/s{seed}"
        target = fresh(folder / "predictions")
        for step, said in answers.items():
            write_array(target / step_name(step) / "logits.npy", np.eye(len(names), dtype=np.float32)[list(said)])
        sets, ids, labels, sentences = zip(*rows, strict=True)
        write_table(target / "index.parquet", {"set": list(sets), "example_id": list(ids), "label": list(labels),
                                               "sentence": list(sentences), "feature_row": [-1] * len(rows)})
        facts = {"kept_step": max(answers) if kept is None else kept, "label_names": list(names)}
        of = manifest("predictions", "predictions", f"s{seed}")
        complete(target, replace(of, facts=facts))
        return Entry(f"m_{task}_ft_s{seed}", "m", task, "ft", seed, folder, of)
    return made


def packed(tmp_path: Path, *entries: Entry) -> dict[str, tuple[dict[str, np.ndarray], dict]]:
    return {task: unpack(text) for task, text in packed_answers(entries, Layout(tmp_path, tmp_path))}


def plain(*examples: int, name: str = "validation") -> list[tuple[str, int, int, int]]:
    return [(name, i, i % 2, i) for i in examples]


def test_answers_and_since_when_they_stand(tmp_path: Path, make: Make) -> None:
    one = make(1, {0: [0, 0, 1, 1], 10: [1, 0, 0, 1], 40: [1, 0, 1, 1]}, plain(5, 6, 7, 8))
    columns, head = packed(tmp_path, one)["t"]
    assert columns["said m/t/ft/s1"].tolist() == [1, 0, 1, 1]
    assert columns["since m/t/ft/s1"].tolist() == [10, 0, 40, 0]
    assert columns["example"].tolist() == [5, 6, 7, 8] and columns["label"].tolist() == [1, 0, 1, 0]
    assert head["label_names"] == list(NAMES) and head["sets"] == ["validation"] and head["places"] == ["m/t/ft/s1"]
    assert head["texts"] == [""] * 4, "no texts where the task's table is not there"


def since(answers: np.ndarray, steps: Sequence[int], example: int) -> int:
    """The slow way: go back from the last checkpoint as long as the answer is the last one's."""
    at = len(steps) - 1
    while at > 0 and answers[at - 1, example] == answers[-1, example]:
        at -= 1
    return steps[at]


@pytest.mark.parametrize("kept", [0, 8, 16, 64])
def test_since_is_what_the_slow_way_says(tmp_path: Path, make: Make, kept: int) -> None:
    random, steps = np.random.default_rng(kept), [0, 8, 16, 64]
    answers = random.integers(0, 2, (4, 50))
    one = make(1, dict(zip(steps, answers.tolist(), strict=True)), plain(*range(50)), kept=kept)
    columns, _ = packed(tmp_path, one)["t"]
    until = steps.index(kept) + 1
    assert columns["said m/t/ft/s1"].tolist() == answers[until - 1].tolist()
    assert columns["since m/t/ft/s1"].tolist() == [since(answers[:until], steps[:until], i) for i in range(50)]


def test_of_one_checkpoint_answers_stand_from_it_on() -> None:
    assert flips(np.array([[1, 0, 1]])).tolist() == [0, 0, 0]


def test_trainings_with_other_rows_and_sets(tmp_path: Path, make: Make) -> None:
    far = [("far", 3, 0, 0), ("far", 4, 1, 0)]
    one = make(1, {0: [0, 1, 0, 1]}, [*plain(3, 4), *far])
    other = make(2, {0: [1, 1, 0]}, plain(9, 4, 3))
    columns, head = packed(tmp_path, one, other)["t"]
    assert head["sets"] == ["validation", "far"] and head["places"] == ["m/t/ft/s1", "m/t/ft/s2"]
    rows = list(zip([head["sets"][i] for i in columns["set"]], columns["example"].tolist(), strict=True))
    assert rows == [("validation", 3), ("validation", 4), ("far", 3), ("far", 4), ("validation", 9)]
    assert columns["said m/t/ft/s1"].tolist() == [0, 1, 0, 1, NOT_ASKED]
    assert columns["since m/t/ft/s1"].tolist() == [0, 0, 0, 0, -1]
    assert columns["said m/t/ft/s2"].tolist() == [0, 1, NOT_ASKED, NOT_ASKED, 1]
    assert columns["sentence"].tolist() == [3, 4, 0, 0, 9] and columns["label"].tolist() == [1, 0, 0, 1, 1]


def test_trainings_that_tell_other_classes_apart_are_left_out(tmp_path: Path, make: Make) -> None:
    entries = [make(1, {0: [0]}, plain(1)), make(2, {0: [0]}, plain(2), names=("yes", "no")),
               make(3, {0: [1]}, plain(1))]
    columns, head = packed(tmp_path, *entries)["t"]
    assert head["places"] == ["m/t/ft/s1", "m/t/ft/s3"] and head["rows"] == 1
    assert "said m/t/ft/s2" not in columns


def test_tasks_are_apart_and_trainings_without_predictions_left_out(tmp_path: Path, make: Make) -> None:
    one, other = make(1, {0: [0]}, plain(1)), make(1, {0: [1, 1]}, plain(1, 2), task="u")
    without = replace(one, seed=7, folder=tmp_path / "outputs/m/t/ft/s7")
    found = packed(tmp_path, without, one, other)
    assert {task: (head["places"], head["rows"]) for task, (_, head) in found.items()} == {
        "t": (["m/t/ft/s1"], 1), "u": (["m/u/ft/s1"], 2)}
    assert packed(tmp_path, without) == {}


def test_texts_of_splits_and_of_sets_out_of_distribution(tmp_path: Path, make: Make) -> None:
    folder = Layout(tmp_path, tmp_path).task("t")
    (folder / "ood").mkdir(parents=True)
    long = "é" * (LONGEST + 1)
    write_table(folder / "validation.parquet", {"example_id": [1, 2], "text_a": ["<b>", long], "text_b": ["好", None]})
    write_table(folder / "ood/far.parquet", {"example_id": [1], "text_a": ["far"], "text_b": [None]})
    _, head = packed(tmp_path, make(1, {0: [0] * 4}, [*plain(1, 2, 3), ("far", 1, 0, 0)]))["t"]
    assert head["texts"] == ["<b> | 好", "é" * (LONGEST - 1) + "…", "", "far"]


def test_of_a_long_pair_something_of_both_is_seen() -> None:
    assert shortened("a | b") == "a | b"
    first, second = "p" * 2 * LONGEST, "h" * 50
    assert shortened(f"{first} | {second}") == "p" * (LONGEST - 54) + f"… | {second}"
    both = shortened(f"{first} | {first}")
    assert len(both) == LONGEST and both.count("…") == 2 and both.endswith("p" * (LONGEST // 2 - 1) + "…")
    turned = shortened(f"{second} | {first}")
    assert len(turned) == LONGEST and turned.startswith(f"{second} | p")
