"""Headline metrics of the lens geometry."""

from finetrace.lenses.headline import AtCheckpoint, Enough, Headline

ENOUGH = Enough(20, "sentences", "sentences")
HEADLINES = (
    Headline("cosine_mean/layer-*/first", "cosine, before", "cosine", 3, "",
             "mean cosine within sentences, last layer, pre-trained"),
    Headline("cosine_mean/layer-*/last", "cosine, after", "cosine", 3, "",
             "mean cosine within sentences, last layer, after training: near 1, all tokens say one thing"),
    Headline("effective_rank/layer-*/first", "rank, before", "dimensions", 1, "",
             "effective rank of the last layer's tokens, pre-trained", enough=ENOUGH),
    Headline("effective_rank/layer-*/last", "rank, after", "dimensions", 1, "",
             "effective rank of the last layer's tokens after training", short="rank", enough=ENOUGH),
)
AT_CHECKPOINTS = (
    AtCheckpoint("cosine", "cosine_mean_layer_{layer}", metric="cosine_mean/layer-*/last"),
    AtCheckpoint("rank", "effective_rank_layer_{layer}", metric="effective_rank/layer-*/last"),
    AtCheckpoint("anisotropy", "anisotropy_layer_{layer}"),
)
