"""Every figure with extreme values, names and counts: nothing is cut off, and nothing warns."""

import importlib
import inspect
import pkgutil

import pytest
from tests.drawn import (  # noqa: F401 (the modules fill FIGURES)
    FIGURES,
    GIVEN,
    assert_inside,
    assert_whole,
    influence,
    layers,
    training,
)

import finetrace

ELSEWHERE = {"finetrace.first_look.figures._styled"}
"""Drawn as SVG for one page: tests/unit/test_first_look.py."""


def test_every_figure_is_among_them() -> None:
    found = set()
    for module in pkgutil.walk_packages(finetrace.__path__, "finetrace."):
        if "figures" in module.name.split("."):
            for name, one in vars(importlib.import_module(module.name)).items():
                if inspect.isfunction(one) and hasattr(one, "__wrapped__") and one.__module__ == module.name:
                    found.add(f"{module.name}.{name}")
    assert len(found) > 50 and found - ELSEWHERE == FIGURES.keys()


FIRST = {name.rpartition(".")[0]: name for name in reversed(FIGURES)}
"""Module -> one of its figures; the others are laid out with the slow tests."""


@pytest.mark.parametrize("name", [name if name in FIRST.values() else pytest.param(name, marks=pytest.mark.slow)
                                  for name in FIGURES])
def test_broken_values_and_long_names_are_drawn_whole(name: str) -> None:
    assert_whole(FIGURES[name](GIVEN["broken"]))


@pytest.mark.parametrize("name", FIGURES)
def test_a_single_tiny_value_is_drawn(name: str) -> None:
    assert_inside(FIGURES[name](GIVEN["one tiny"]))


@pytest.mark.slow
@pytest.mark.parametrize("given", ["one", "one tiny", "many, huge", "some, tiny"])
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off(name: str, given: str) -> None:
    assert_whole(FIGURES[name](GIVEN[given]))
