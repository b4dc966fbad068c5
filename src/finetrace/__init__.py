"""finetrace shows what training does to a language model."""

__version__ = "0.1.0"
