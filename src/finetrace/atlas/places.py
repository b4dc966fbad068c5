"""The masked-word trainings of a study on the atlas: pre-trainings, published series, adaptations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetrace.atlas.collect import read_metrics
from finetrace.layout import Layout
from finetrace.store.manifest import Manifest, read_manifest

MEANS = {"edges": {"/f1/full/first": "mean_f1/first", "/f1/full/last": "mean_f1/last"},  # over tasks
         "cloze": {"/p_at_1": "mean_p_at_1", "/p_at_10": "mean_p_at_10"}}  # over corpora
"""Lens -> end of its metrics' names -> name of their mean."""


@dataclass
class Place:
    """One of them. name: its folder in outputs;  metrics: lens (or "trajectory") -> metric -> value."""

    name: str
    folder: Path
    manifest: Manifest
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Names its page."""
        return self.name.replace("/", "_")


def collect_places(names: Sequence[str], looked: Mapping[str, Sequence[str]], layout: Layout) -> list[Place]:
    """In the study's order. Raises FinetraceError when one is absent or damaged."""
    places = []
    for name in names:
        folder = layout.place(name)
        place = Place(name, folder, read_manifest(folder / "trajectory"))
        place.metrics = read_metrics(folder, name, looked)
        for lens, ends in MEANS.items():
            found = place.metrics.get(lens, {})
            for end, name in ends.items():
                values = [value for metric, value in found.items() if metric.endswith(end) and value is not None]
                if values:
                    found[name] = sum(values) / len(values)
        places.append(place)
    return places
