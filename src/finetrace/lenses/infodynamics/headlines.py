"""Headline metrics of the lens infodynamics."""

from finetrace.lenses.headline import Enough, Headline

ENOUGH = Enough(200, "training examples", "rows")
HEADLINES = (
    Headline("novelty_mean", "novelty", "nats", 4, "", "mean novelty of the training logits"),
    Headline("novelty_last_tenth", "novelty, end", "nats", 4, "", "mean novelty of the last tenth of the run"),
    Headline("novelty_plateau", "plateau", "nats", 4, "",
             "novelty of a confident model that merely sees shuffled labels"),
    Headline("resonance_mean", "resonance", "nats", 5, "", "mean resonance; 0 for a stationary run"),
    Headline("slope", "slope", "Pearson's r", 3, "", "slope of resonance on novelty, both as z-scores", short="slope",
             enough=ENOUGH),
    Headline("slope_null_low", "null low", "Pearson's r", 3, "", "2.5 % of the slopes in shuffled order"),
    Headline("slope_null_high", "null high", "Pearson's r", 3, "", "97.5 % of the slopes in shuffled order"),
    Headline("change_points", "changes", "count", 0, "", "change points of novelty", enough=ENOUGH),
    Headline("probe/train/correctness", "correctness", "share", 3, "up",
             "mean share of looks at which a probe example was right"),
)
