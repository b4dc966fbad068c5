"""Headline metrics of the lens influence."""

from finetrace.lenses.headline import AtCheckpoint, Headline

HEADLINES = (
    Headline("agreement", "foretells", "", 2, "up",
             "rank correlation, over evaluation examples, of the drop of the loss that gradients of training examples "
             "foretell and that which training brought", short="influence"),
    Headline("top_tenth", "from a tenth", "share", 2, "",
             "part of all influence that the most influential tenth of the training examples has; 0.1 where all have "
             "the same"),
    Headline("cosine/last", "gradients agree", "", 3, "",
             "mean cosine of the loss gradients of an evaluation and a training example after training; 0 where they "
             "have nothing to do with each other"),
    Headline("half_step", "half taught by", "step", 0, "",
             "first checkpoint by which half of all influence had happened"),
)
AT_CHECKPOINTS = (
    AtCheckpoint("influence", "influence"),
    AtCheckpoint("cosine", "cosine", metric="cosine/last"),
)
