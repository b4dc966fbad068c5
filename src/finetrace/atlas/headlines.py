"""The headline metrics of all lenses, in the order of the tables. A lens without any is absent."""

from finetrace.lenses.calibration import headlines as calibration
from finetrace.lenses.cloze import headlines as cloze
from finetrace.lenses.edges import headlines as edges
from finetrace.lenses.features import headlines as features
from finetrace.lenses.geometry import headlines as geometry
from finetrace.lenses.headline import Headline
from finetrace.lenses.hulls import headlines as hulls
from finetrace.lenses.influence import headlines as influence
from finetrace.lenses.infodynamics import headlines as infodynamics
from finetrace.lenses.kernel import headlines as kernel
from finetrace.lenses.pairs import headlines as pairs
from finetrace.lenses.probes import headlines as probes
from finetrace.lenses.similarity import headlines as similarity

OF_FINE_TUNINGS: dict[str, tuple[Headline, ...]] = {
    "infodynamics": infodynamics.HEADLINES,
    "geometry": geometry.HEADLINES,
    "similarity": similarity.HEADLINES,
    "hulls": hulls.HEADLINES,
    "probes": probes.HEADLINES,
    "calibration": calibration.HEADLINES,
    "features": features.HEADLINES,
    "kernel": kernel.HEADLINES,
    "influence": influence.HEADLINES,
}
"""Lens -> its columns in the table of fine-tunings."""
OF_MASKED_WORDS: dict[str, tuple[Headline, ...]] = {
    "edges": edges.HEADLINES,
    "cloze": cloze.HEADLINES,
    "pairs": pairs.HEADLINES,
}
"""Lens -> its columns in the table of masked-word trainings."""
COURSES: dict[str, tuple[Headline, ...]] = {"cloze": cloze.COURSES}
"""Lens -> metrics that head no column, and whose courses are signals of a training all the same."""
