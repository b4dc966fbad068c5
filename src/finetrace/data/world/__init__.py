"""The micro world: a small artificial language in which facts, grammar and task labels are known exactly."""

from finetrace.data.world.build import World, build_world
from finetrace.data.world.facts import Fact
from finetrace.data.world.grammar import Sentence
from finetrace.data.world.tasks import MICRO_TASKS, TaskInfo, task_rows
from finetrace.data.world.tasks_marked import MICRO_WORD_TASKS, word_examples
from finetrace.data.world.tokenizer import build_tokenizer

__all__ = [
    "MICRO_TASKS",
    "MICRO_WORD_TASKS",
    "Fact",
    "Sentence",
    "TaskInfo",
    "World",
    "build_tokenizer",
    "build_world",
    "task_rows",
    "word_examples",
]
