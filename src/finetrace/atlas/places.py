"""The masked-word trainings of a study on the atlas: pre-trainings, published series, adaptations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetrace.atlas.collect import lenses_at, read_metrics
from finetrace.atlas.headlines import OF_MASKED_WORDS
from finetrace.layout import Layout
from finetrace.lenses.headline import add_means
from finetrace.store.manifest import Manifest, read_manifest


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


def collect_places(names: Sequence[str], looked: Mapping[str, Sequence[str]], layout: Layout, *,
                   verify: bool = True) -> list[Place]:
    """In the study's order. verify: False where the folders have just been verified. Raises FinetraceError when one is
    absent or damaged."""
    places, looks = [], lenses_at(looked)
    for name in names:
        folder = layout.place(name)
        place = Place(name, folder, read_manifest(folder / "trajectory", verify=verify))
        place.metrics = read_metrics(folder, looks.get(name, ()), verify=verify)
        for lens, headlines in OF_MASKED_WORDS.items():
            add_means(place.metrics.get(lens, {}), headlines)
        places.append(place)
    return places
