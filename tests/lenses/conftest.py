"""Stages of lenses in tests: what they measure is real, their figures are sketches."""

import pytest
from tests.pictures import sketch


@pytest.fixture(autouse=True)
def sketches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that a test's own runs write are sketches; those of a fixture that a module shares are real, as are those
    of tests/lenses/LENS/test_figures.py."""
    if request.path.stem != "test_figures":
        monkeypatch.setattr("finetrace.figures.style.to_png", sketch)
