"""Sentences of word tasks that no training of the study can read, told where the data is made.

A word takes at least one token, so a sentence with more words than a training takes tokens is too long for every
tokenizer. How many tokens it really has is known once a tokenizer reads it: at the start of a search or training.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from finetrace.errors import FinetraceError
from finetrace.store.tables import read_table


def shortest_input(task: str, folders: Iterable[Path]) -> tuple[int, str] | None:
    """The fewest tokens that a training on a task takes, and its item; None where none has fixed settings.

    folders: of settings files, one per item, of searches, trainings and downstream trainings.
    """
    lengths = []
    for path in sorted(path for folder in folders for path in folder.glob("*.json")):
        settings: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
        if settings.get("train") and task in (settings.get("task"), settings.get("downstream", {}).get("task")):
            lengths.append((int(settings["train"]["max_length"]), path.stem))
    return min(lengths, default=None)


def require_short(name: str, folder: Path, limit: tuple[int, str] | None) -> None:
    """Raises FinetraceError naming the longest sentence of a split when it has more words than `limit` allows tokens.

    name: of the task, with its section;  folder: of its tables, one per split;  limit: as `shortest_input` gives it.
    """
    for path in sorted(folder.glob("*.parquet")) if limit else []:
        table = read_table(path)
        if "words" not in table.column_names or table.num_rows == 0:
            continue
        words = pc.list_value_length(table["words"]).to_numpy()
        longest = int(np.argmax(words))
        if limit and words[longest] > limit[0]:
            text = " ".join(table["words"][longest].as_py()[:8])
            raise FinetraceError(
                f"{name}: {path.stem} has a sentence of {words[longest]} words ({text!r}...), of one token each at "
                f"least, and {limit[1]} takes {limit[0]} tokens; raise train.max_length where the model allows it, or "
                "leave long sentences out with the task's max_words")
