"""The files of the original hull-probe programs for a whole trajectory, in their layouts (see
`originals.directprobe_files`).

    files/labels/tags.txt                             labels, one per line
    files/entities/train.txt                          example id<TAB>label of each probed point, as in clusters.txt
    files/step-00000128/layer-04/clusters.txt ...     what both programs write for one space
    files/batch_vec/128.txt, inside_max/, inside_mean/, outside_min/     tables of all layers of one checkpoint

Labels are in the order of their names, clusters are numbered in the order in which they came to be, as in the
originals.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetrace.originals import directprobe_files as files
from finetrace.store.files import write_text
from finetrace.store.hidden import step_name

if TYPE_CHECKING:
    from finetrace.lenses.hulls.clusters import Clusters
    from finetrace.lenses.hulls.distances import LabelDistances, Prediction

VALUES = ("inside_max", "inside_mean", "outside_min")


class Writer:
    """Writes the spaces of one split as they come, and the tables at the end."""

    def __init__(self, folder: Path, names: Sequence[str], missing: str):
        self.folder, self.names = folder, np.asarray(names)
        self.order = np.argsort(self.names, kind="stable")
        self.missing = 0.0 if missing == "zero" else np.nan
        self.tables: dict[int, dict[str, dict[int, np.ndarray]]] = defaultdict(lambda: defaultdict(dict))

    def examples(self, split: str, ids: np.ndarray, labels: np.ndarray) -> None:
        """The label set and the labelled examples, as the originals read them."""
        _write(self.folder / "labels" / "tags.txt", [str(self.names[k]) for k in self.order])
        _write(self.folder / "entities" / f"{split}.txt",
               [f"{i}\t{self.names[k]}" for i, k in zip(ids, labels, strict=True)])

    def space(self, step: int, layer: int, clusters: "Clusters", order: Sequence[int], distances: np.ndarray,
              label_distances: "LabelDistances", ranked: "Prediction | None", gold: np.ndarray | None) -> None:
        """One space. order: the clusters as they are to be numbered;  distances: (cluster, cluster);  ranked, gold:
        new points, by all clusters, and their label numbers."""
        out = self.folder / step_name(step) / f"layer-{layer:02d}"
        at = np.asarray(order, np.int64)
        number = np.argsort(at)
        labels = self.names[clusters.cluster_labels[at]]
        out.mkdir(parents=True, exist_ok=True)
        files.write_clusters(out / "clusters.txt", number[clusters.assignment])
        files.write_distances(out / "dis.txt", labels, distances[np.ix_(at, at)])
        if ranked is not None and gold is not None:
            files.write_prediction(out / "prediction.txt", self.names[gold], number[ranked.order], ranked.distances,
                                   labels)
        classes = self.names[self.order]
        matrix = label_distances.matrix[np.ix_(self.order, self.order)]
        vector = matrix[np.triu_indices(len(classes), 1)]
        vector = np.where(np.isnan(vector), self.missing, vector)
        files.write_label_pairs(out / "vec.txt", classes, vector)
        self.tables[step]["batch_vec"][layer] = vector
        for name in VALUES:
            values = getattr(label_distances, name)[self.order]
            files.write_label_values(out / f"{name}.txt", classes, values)
            self.tables[step][name][layer] = values

    def batch_tables(self) -> None:
        """One table per checkpoint and kind, a column per layer."""
        classes = [str(name) for name in self.names[self.order]]
        for step, kinds in self.tables.items():
            for kind, columns in kinds.items():
                rows = files.pair_names(classes) if kind == "batch_vec" else classes
                (self.folder / kind).mkdir(exist_ok=True)
                layers = sorted(columns)
                files.write_batch_table(self.folder / kind / f"{step}.txt", rows,
                                        np.stack([columns[layer] for layer in layers], axis=1), layers)


def describe(folder: Path, wanted: bool) -> None:
    """A folder that is always there, and says what is in it."""
    text = "Files in the layouts of DirectProbe (2021) and of its sequel on fine-tuning (2022)." if wanted else \
        "Empty: set hulls.files: true in params.yaml for the files of the original programs."
    _write(folder / "README.txt", [text])


def _write(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{line}\n" for line in lines))
