"""Headline metrics of the lens cloze."""

from finetrace.lenses.headline import AtCheckpoint, Headline

HEADLINES = (
    Headline("mean_p_at_1", "facts, P@1", "share", 3, "up",
             "facts whose object ranks first, own head, last checkpoint, mean over corpora", mean_of="*/p_at_1",
             short="facts"),
    Headline("mean_p_at_10", "facts, P@10", "share", 3, "up",
             "facts whose object ranks among the ten best, own head, last checkpoint, mean over corpora",
             mean_of="*/p_at_10"),
)
COURSES = (
    Headline("mean_held_out_p_at_1", "held out", "share", 3, "", "held-out facts", mean_of="*/held_out_p_at_1"),
    Headline("mean_held_out_p_at_10", "held out", "share", 3, "", "held-out facts", mean_of="*/held_out_p_at_10"),
)
AT_CHECKPOINTS = (
    AtCheckpoint("p_at_1", "*/own_layer{layer}", metric="mean_p_at_1"),
)
