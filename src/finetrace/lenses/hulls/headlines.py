"""Headline metrics of the lens hulls."""

from finetrace.lenses.headline import AtCheckpoint, Enough, Headline

ENOUGH = Enough(20, "training examples", "points_train")
HEADLINES = (
    Headline("clusters/layer-*/first", "clusters, before", "count", 0, "",
             "hull probe: clusters of the last layer, pre-trained", enough=ENOUGH),
    Headline("clusters/layer-*/last", "clusters, after", "count", 0, "",
             "hull probe: clusters of the last layer after training; as many as classes: planes separate them",
             short="clusters", enough=ENOUGH),
    Headline("mean_outside_min/layer-*/first", "distance, before", "Euclidean", 2, "",
             "mean distance of a class to its nearest, pre-trained"),
    Headline("mean_outside_min/layer-*/last", "distance, after", "Euclidean", 2, "",
             "mean distance of a class to its nearest after training"),
)
AT_CHECKPOINTS = (
    AtCheckpoint("clusters", "clusters_layer_{layer}", metric="clusters/layer-*/last"),
    AtCheckpoint("distance", "mean_outside_min_layer_{layer}", metric="mean_outside_min/layer-*/last"),
)
