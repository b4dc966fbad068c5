"""Seconds of items, and the guesses that are made of them."""

import random
from pathlib import Path
from statistics import median

import pytest

from finetrace.pipeline.times import GUESS, Times


def test_an_unknown_item_takes_as_long_as_the_median_of_its_stage(tmp_path: Path) -> None:
    times, of_item, chance = Times(tmp_path / "times.json"), dict[str, float](), random.Random(0)
    assert times.of("train@x") == GUESS["train"] and times.of("odd@x") == 2.0 and not times.knows("train@x")
    for number in range(60):
        name = f"train@{number % 25}"  # some run again
        of_item[name] = round(chance.random() * 100, 2)
        times.add(name, of_item[name])
        assert times.of(name) == of_item[name]
        assert times.of("train@new") == pytest.approx(median(of_item.values()), abs=1e-12) and times.knows("train@new")
    times.write()
    again = Times(tmp_path / "times.json")
    assert again.seconds == of_item and again.of("train@new") == times.of("train@new") and again.of("odd@x") == 2.0


@pytest.mark.parametrize("content", ["", "[]", "{\"a\": \"x\"}", "{\"a\": null}"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "times.json").write_text(content)
    assert Times(tmp_path / "times.json").seconds == {}
