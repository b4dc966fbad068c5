"""The partition that the hull probe finds."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Component:
    """Labels whose hulls overlap, directly or through each other; labels of different components never interact."""

    labels: np.ndarray
    """(label,) the labels, as given to `probe`."""
    end_merges: int
    """Merges to the end state (one cluster per label) when no overlap is looked at."""
    first_overlap: int | None
    """Number of merges after which two hulls of different label first overlap; None when only conflicting points keep
    it apart."""
    refused: int
    """Candidate pairs that were discarded."""


@dataclass(frozen=True)
class Clusters:
    """Answer of `probe`. Clusters are numbered by their smallest row."""

    assignment: np.ndarray
    """(point,) int64 in 0 .. clusters-1: the cluster of each point."""
    cluster_labels: np.ndarray
    """(cluster,) the label that all points of the cluster share, as given to `probe`."""
    classes: np.ndarray
    """(label,) all labels in order, also those without points."""
    linear: bool
    """All labels present form one cluster each: their hulls are pairwise disjoint (proved)."""
    merges: np.ndarray
    """(merge, 2) int64: names (smallest rows) of the clusters united, component after component; empty for labels kept
    whole."""
    merge_distances: np.ndarray
    """(merge,) float64: centroid distances of the merges."""
    components: tuple[Component, ...]
    conflicts: tuple[np.ndarray, ...]
    """Rows of each group of identical points with more than one label: no partition can separate them, they stay single
    points."""
    repeated: int
    """Points that repeat an earlier point of the same label."""
    decisions: dict[str, int]
    """Pairs of clusters decided, by what proved it: means, discriminant, reused plane, nearest points, linear program
    (disjoint); overlap, inherited overlap; undecided (treated as overlap)."""
    points: np.ndarray
    """(point, dim) float64."""

    @property
    def count(self) -> int:
        """Number of clusters."""
        return len(self.cluster_labels)

    def rows(self, cluster: int) -> np.ndarray:
        """Rows of one cluster, ascending."""
        return np.flatnonzero(self.assignment == cluster)
