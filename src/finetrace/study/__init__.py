"""params.yaml as a whole: what is trained, which lens looks where, and the plan that follows from it."""

from finetrace.study.read import load_study, parse_study
from finetrace.study.study import Run, Study

__all__ = ["Run", "Study", "load_study", "parse_study"]
