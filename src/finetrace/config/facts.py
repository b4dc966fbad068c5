"""Settings of fact sets: what cloze probing asks for."""

from typing import Literal

from finetrace.config.base import require, settings


@settings
class FactsSettings:
    """Facts as cloze questions, in `data/NAME/facts.parquet`."""

    source: Literal["world"] = "world"
    """`world`: the micro world's own facts, held-out ones as a control."""


@settings
class FactFilesSettings:
    """Facts from files in the format of LAMA."""

    path: str
    """The folder; relative to the project folder."""

    def __post_init__(self) -> None:
        require(bool(self.path), "path: name the folder with the facts")
