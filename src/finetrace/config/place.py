"""Names of trajectories: their folders in outputs."""

import re

from finetrace.config.base import require

_PLACE = re.compile(r"[^/]+/(pretrain|adapt|[^/]+/[^/]+/s\d+)")


def require_place(key: str, place: str) -> None:
    """For `__post_init__`: reject what is not a trajectory's folder in outputs."""
    require(bool(_PLACE.fullmatch(place)), f"{key}: {place!r} is not a trajectory's folder in outputs; write "
                                           "MODEL/pretrain, MODEL/adapt or MODEL/TASK/METHOD/sSEED")
