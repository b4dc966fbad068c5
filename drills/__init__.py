"""The drill book: faults made on purpose around a whole toy study, from outside, by the commands that a user has."""

import sys
from pathlib import Path
from types import ModuleType

# Some packages install a folder `tests` of their own, which would be found before ours
ours = ModuleType("tests")
ours.__path__ = [str(Path(__file__).parents[1] / "tests")]
sys.modules.setdefault("tests", ours)
