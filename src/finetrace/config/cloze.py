"""Settings of the lens cloze: which facts a model's masked-word predictions know, layer by layer."""

from typing import Literal

from finetrace.config.base import settings


@settings
class ClozeSettings:
    """Cloze probing (Petroni et al. 2019) of every checkpoint and layer."""

    readouts: tuple[Literal["own", "trained", "tuned"], ...] = ("own", "trained", "tuned")
    """What reads a layer: the model's own masked-word head; a head trained for the layer; an affine map into the own head."""
    checkpoints: Literal["all", "ends"] | list[int] = "all"
    """Which recorded checkpoints: all, the first and last, or these steps; first and last are always in."""
