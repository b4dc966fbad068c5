"""Settings of the lens edges: probes of words and word pairs on every layer and on mixes of layers."""

from itertools import pairwise
from typing import Any, Literal

from finetrace.config.base import require, settings

SPLITS = ("train", "validation", "test")
Ends = Literal["all", "ends"]


@settings
class EdgeControlSettings:
    """Control tasks (Hewitt and Liang 2019): labels at random per type of word, for the probes of single layers."""

    checkpoints: Ends = "ends"
    """ends: the first and the last one only."""
    key: Literal["spans", "first"] = "spans"
    """A target's type: the words of its spans in order, or of the first alone (in dependency tasks, the dependent)."""
    labels: Literal["empirical", "attachment"] = "empirical"
    """empirical: drawn as often as in the training targets; attachment: evenly itself, first or last word, what a word
    attaches to in the control task of dependencies; the rule is the class."""

    def __post_init__(self) -> None:
        require(self.labels != "attachment" or self.key == "first",
                "labels: attachment is about the dependent alone; set key: first")


@settings
class EdgeMdlSettings:
    """Online code of Voita and Titov (2020) for the probes of single layers, in softmax mode."""

    checkpoints: Ends = "ends"
    """ends: the first and the last one only."""
    fractions: tuple[float, ...] = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
    """Ends of the blocks as shares of the training sentences, ascending to 1; by default the published ones."""

    def __post_init__(self) -> None:
        ends = (0.0, *self.fractions)
        require(len(ends) > 1 and all(a < b for a, b in pairwise(ends)) and ends[-1] == 1,
                f"fractions: {list(self.fractions)} must ascend from above 0 to 1, e.g. [0.1, 0.5, 1.0]")


@settings
class EdgesSettings:
    """Edge probing (Tenney et al. 2019) of every checkpoint, all layers and cumulative mixes in one pass."""

    tasks: tuple[str, ...] = ()
    """Tasks of words (kinds token, span, span-pair) of `tasks` or `task_files`."""
    recipe: Literal["fast", "tenney", "seed-compat"] = "fast"
    """Named settings of probe and training; `changes` overrides single ones."""
    changes: dict[str, Any] | None = None
    """Changes of the recipe, e.g. {head: linear, max_steps: 500, dropout: 0.2}; fields of
    finetrace/lenses/edges/recipe.py."""
    checkpoints: Literal["all", "ends"] | list[int] = "all"
    """Which recorded checkpoints: all, the first and last, or these steps; first and last are always in."""
    max_targets: dict[str, int] | None = None
    """Most targets per split, e.g. {train: 20000}; whole sentences are drawn, the same for all checkpoints and
    trajectories of a study. 0 or absent: all."""
    layers: Literal["all"] | list[int] = "all"
    """Layers with a probe of their own, 0 being the embeddings; negative ones count from the last."""
    mixes: Literal["all", "full", "none"] = "all"
    """Learned mixes: of the layers 0 to k for every k, of all layers only, or none."""
    seeds: int = 1
    """Repetitions of each probe with other first weights and masks; their decisions are pooled."""
    control: EdgeControlSettings | None = None
    """Control tasks and selectivity; {} takes the defaults. null: none."""
    mdl: EdgeMdlSettings | None = None
    """Minimum description length; {} takes the defaults. null: none."""
    dtype: Literal["float16", "float32"] = "float16"
    """In which the states of the tokens wait on the disk."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """Of the encoder's forward pass; auto: bf16 on a GPU that has it."""
    batch_tokens: int = 4096
    """Tokens of one forward pass, with padding."""
    max_length: int = 512
    """Longest sentence in tokens; longer ones are cut, targets beyond are dropped and counted."""
    memory_mib: int = 1024
    """Memory for probes that are trained together, in MiB; it changes the time, not the results."""

    def __post_init__(self) -> None:
        require(len(set(self.tasks)) == len(self.tasks), "tasks: a name stands twice")
        for split, count in (self.max_targets or {}).items():
            require(split in SPLITS, f"max_targets: {split!r} is not a split; known: {', '.join(SPLITS)}")
            require(count >= 0, f"max_targets.{split}: {count} is negative; 0 takes all")
        require(self.layers == "all" or bool(self.layers) or self.mixes != "none",
                "layers: names no layer, and mixes is none; write layers: all, or mixes: all")
        require(self.control is None or bool(self.layers), "control: is about single layers; write layers: all")
        require(self.mdl is None or bool(self.layers), "mdl: is about single layers; write layers: all")
        for key in ("seeds", "batch_tokens", "memory_mib"):
            require(getattr(self, key) >= 1, f"{key}: {getattr(self, key)} is less than 1")
        require(self.max_length >= 4, f"max_length: {self.max_length} leaves no room for words")
