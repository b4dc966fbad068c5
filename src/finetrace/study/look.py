"""The section `look`: which lens looks at which trajectories.

    look:
      layers: ["micro-a/*/ft/*", "micro-random/*/ft/*"]     # a group: all lenses of hidden states
      kernel: "micro-a/micro-sentiment/{ft-linear,lp-ft,lora}/s1"
      infodynamics, calibration: all                         # several at once
      edges:
      - {at: micro-a/pretrain, checkpoints: [512, 1200]}     # other settings of the lens at some places
      - micro-a-*/adapt

Without `look` the cheap lenses look at every fine-tuning, and at given checkpoints as far as they can.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import TYPE_CHECKING, Any

from finetrace.config.base import merge
from finetrace.lenses.calibration.settings import CalibrationSettings
from finetrace.lenses.cloze.settings import ClozeSettings
from finetrace.lenses.convergence.settings import ConvergenceSettings
from finetrace.lenses.edges.settings import EdgesSettings
from finetrace.lenses.features.settings import FeaturesSettings
from finetrace.lenses.geometry.settings import GeometrySettings
from finetrace.lenses.hulls.settings import HullsSettings
from finetrace.lenses.influence.settings import InfluenceSettings
from finetrace.lenses.infodynamics.settings import InfodynamicsSettings
from finetrace.lenses.kernel.settings import KernelSettings
from finetrace.lenses.pairs.settings import PairsSettings
from finetrace.lenses.probes.settings import ProbesSettings
from finetrace.lenses.similarity.settings import SimilaritySettings
from finetrace.study.patterns import ALL, matches, nearest, select

SIGNALS = ("fine-tuning", "given with signals")
HEADS = (*SIGNALS, "given with head")
STATES = (*HEADS, "given")
"""Kinds of trajectories on a task: whose training was recorded, whose head tells its classes, all."""

log = logging.getLogger("finetrace")


@dataclass(frozen=True)
class Lens:
    """What a lens can look at. settings: what its section of params.yaml says;  of: kinds of trajectories;
    reads: stages and lenses of the same trajectory that it builds on;  classes: whether the trajectory's task has to be
    one of classes, of which an example has one."""

    settings: type | None = None
    of: tuple[str, ...] = SIGNALS
    reads: tuple[str, ...] = ()
    classes: bool = False


EVERY = ("fine-tuning", "pre-training", "adaptation")
LENSES: dict[str, Lens] = {
    "infodynamics": Lens(InfodynamicsSettings, classes=True),
    "geometry": Lens(GeometrySettings, STATES, reads=("hidden",)),
    "similarity": Lens(SimilaritySettings, STATES, reads=("hidden",)),
    "hulls": Lens(HullsSettings, STATES, reads=("hidden",), classes=True),
    "probes": Lens(ProbesSettings, STATES, reads=("hidden",), classes=True),
    "convergence": Lens(ConvergenceSettings, STATES, reads=("geometry", "probes"), classes=True),
    "edges": Lens(EdgesSettings, of=EVERY),
    "cloze": Lens(ClozeSettings, of=EVERY),
    "pairs": Lens(PairsSettings, of=EVERY),
    "calibration": Lens(CalibrationSettings, HEADS, reads=("predictions",), classes=True),
    "features": Lens(FeaturesSettings, HEADS, reads=("predictions",), classes=True),
    "kernel": Lens(KernelSettings, HEADS, classes=True),
    "influence": Lens(InfluenceSettings),
}
GROUPS = {
    "layers": ("geometry", "similarity", "hulls", "probes", "convergence"),
    "answers": ("calibration", "features"),
}
"""A name for several lenses: those of hidden states, those of predictions."""
CHEAP = ("infodynamics", "geometry", "similarity", "probes", "convergence", "calibration", "features")
"""The lenses that look at every trajectory on a task that they can look at, where a study does not say."""

if TYPE_CHECKING:

    class LensSections:
        def __getattr__(self, name: str) -> Any: ...
else:
    LensSections = make_dataclass(
        "LensSections",
        [(name, declared.settings, field(default_factory=declared.settings)) for name, declared in LENSES.items()
         if declared.settings],
        kw_only=True,
        frozen=True,
    )
    """The sections of params.yaml that belong to lenses, each of its own name."""

Looked = dict[str, dict[str, Any]]
"""Lens -> place -> the lens's settings there."""


def who_looks(look: Mapping[str, Any] | None, places: Mapping[str, str], settings: Mapping[str, Any],
              without_classes: Mapping[str, str] | None = None) -> Looked:
    """What every lens looks at, in the order of the places; what a lens builds on looks there as well.

    look: the section as plain values;  places: place -> kind of trajectory;  settings: lens -> its section;
    without_classes: place -> what its task predicts instead. There, lenses that need classes are left out, with a line
    in the log, where a group, a wider pattern or no `look` meant them too.
    Raises ValueError naming key, pattern and the nearest names, also for a lens that needs classes and is named for
    places that have none.
    """
    looked: Looked = {}
    left_out: dict[str, list[str]] = {}
    explicit = look is not None
    if look is None:
        look = {lens: "all" for lens in CHEAP if set(LENSES[lens].of) & set(places.values())}
    for key, entries in look.items():
        names = _lenses(key)
        for lens in names:
            chosen = _places(f"look.{key}", lens, entries, places)
            lacking = [place for place in chosen if LENSES[lens].classes and place in (without_classes or {})]
            meant = len(lacking) == len(chosen) or set(lacking) & set(_texts(entries))
            if lacking and explicit and key == lens and meant:
                raise ValueError(f"look.{key}: needs classes, and the task of {lacking[0]} has none (target: "
                                 f"{(without_classes or {})[lacking[0]]}); leave the place out, or make classes of its "
                                 "labels, e.g. by label_ranges")
            for place in lacking:
                left_out.setdefault(place, []).append(lens)
            for place, changes in ((p, c) for p, c in chosen.items() if p not in lacking):
                if changes and (len(names) > 1 or settings[lens] is None):
                    raise ValueError(f"look.{key}: settings can be changed of one lens at a time, and "
                                     "only if it has some")
                before = looked.setdefault(lens, {}).get(place, settings[lens])
                looked[lens][place] = (
                    merge(before, changes, f"params.yaml: look.{key} at {place}") if changes else before
                )
    for place, lenses in left_out.items():
        log.info("look: %s need classes, which the task of %s has not; left out there", ", ".join(lenses), place)
    for lens in reversed(LENSES):  # convergence brings geometry and probes
        for other in (name for name in LENSES[lens].reads if name in LENSES):
            for place in looked.get(lens, {}):
                looked.setdefault(other, {}).setdefault(place, settings[other])
    order = list(places)
    return {
        lens: dict(sorted(looked[lens].items(), key=lambda pair: order.index(pair[0])))
        for lens in LENSES
        if looked.get(lens)
    }


def _lenses(key: str) -> list[str]:
    """The lenses that a key names: one, a group, or several with commas between."""
    names: list[str] = []
    for name in (part.strip() for part in key.split(",")):
        if name not in LENSES and name not in GROUPS:
            raise ValueError(
                f"look: {name!r} is neither a lens nor a group; nearest: {nearest(name, [*LENSES, *GROUPS])}"
            )
        names += GROUPS.get(name, (name,))
    return names


def _texts(entries: Any) -> list[str]:
    """The patterns of an entry of `look`."""
    if isinstance(entries, str):
        return [entries]
    if isinstance(entries, Mapping):
        return _texts(entries.get("at", []))
    return [text for entry in entries for text in _texts(entry)]


def _places(where: str, lens: str, entries: Any, places: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Place -> changes of the lens's settings there; later entries win."""
    possible = [place for place, kind in places.items() if kind in LENSES[lens].of]
    entries = entries if isinstance(entries, Sequence) and not isinstance(entries, str) else [entries]
    plain = [entry for entry in entries if isinstance(entry, str)]
    changes: dict[str, dict[str, Any]] = {}
    if plain and plain != ["none"]:
        _require_given(plain, where, lens, places)
        changes = {p: {} for p in select(plain, possible, where, places)}
    for entry in entries:
        if isinstance(entry, str):
            continue
        if not isinstance(entry, Mapping) or "at" not in entry:
            raise ValueError(
                f"{where}: {entry!r} is not a pattern over places such as 'micro-a/*/ft/*', nor a mapping with `at`"
            )
        patterns = [entry["at"]] if isinstance(entry["at"], str) else entry["at"]
        if not isinstance(patterns, list) or not patterns or not all(isinstance(pattern, str) for pattern in patterns):
            raise ValueError(f"{where}.at: {patterns!r} is neither a pattern over places such as 'micro-a/*/ft/*' nor "
                             "a list of them")
        _require_given(patterns, f"{where}.at", lens, places)
        for place in select(patterns, possible, f"{where}.at", places):
            changes.setdefault(place, {}).update({k: v for k, v in entry.items() if k != "at"})
    return changes


def _require_given(patterns: Sequence[str], where: str, lens: str, places: Mapping[str, str]) -> None:
    """Raises ValueError for a pattern that means nothing but given checkpoints which lack what the lens reads."""
    for pattern in patterns:
        meant = [place for place in places if pattern != ALL and matches(place, pattern)]
        given_places = [place for place in meant if places[place] in STATES[1:]]
        if given_places and not any(places[place] in LENSES[lens].of for place in meant):
            name, task = given_places[0].split("/")[:2]
            needs = (f"the checkpoints' own head; if they have one for its classes, say so: head: {task}"
                     if "given with head" in LENSES[lens].of else
                     "the signals of a training; of a folder that TraceCallback wrote say signals: true"
                     if lens == "infodynamics" else f"the place {name}/pretrain")
            raise ValueError(f"{where}: {pattern!r}: at {given_places[0]} {lens} needs {needs} (series.{name})")
