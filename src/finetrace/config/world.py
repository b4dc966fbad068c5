"""Settings of the micro world: how large the artificial language is, and how hard its tasks are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WorldSettings:
    """What `finetrace.data.world.build_world` needs besides a seed; the defaults are those of the default study."""

    people: int = 60
    """Number of named people, half of them women (even)."""
    cities: int = 30
    """Number of cities, one capital per country among them."""
    countries: int = 12
    """Number of countries."""
    languages: int = 10
    """Number of languages that people speak."""
    jobs: int = 12
    """Number of jobs (two per topic at most)."""
    corpus_sentences: int = 16_000
    """Number of sentences of the pre-training corpus."""
    fact_share: float = 0.5
    """Share of corpus sentences that state facts (0 to 1)."""
    fact_skew: float = 0.4
    """Exponent of the frequency of facts, rank ** -fact_skew over subjects (0 to 1): 0 states all equally often. Some
    skew makes a model find out how to look facts up far earlier, and then the rare ones follow."""
    held_out_share: float = 0.15
    """Share of the facts of each relation that the corpus never states (0 to 0.5); capitals are always stated."""
    train_rows: int = 1_600
    """Number of training rows of every classification task."""
    validation_rows: int = 400
    """Number of validation rows of every classification task."""
    test_rows: int = 400
    """Number of test rows of every classification task, shifted domains included."""
    train_sentences: int = 200
    """Number of training sentences of every task of words."""
    validation_sentences: int = 60
    """Number of validation sentences of every task of words."""
    test_sentences: int = 60
    """Number of test sentences of every task of words."""
    seen_share: float = 0.4
    """Share of the content words (adjectives, topic words, cities) that training rows may show; evaluation uses all."""
    label_noise: float = 0.0
    """Share of training labels replaced by another label (0 to 1); evaluation labels stay right."""
    difficulty: float = 0.8
    """Share of rows that need sentence structure (0 to 1): at 0 single words suffice for the tasks on one text."""
    max_tokens: int = 64
    """`model_max_length` of the tokenizer, in tokens, special tokens included."""

    def __post_init__(self) -> None:
        limits = {
            "people": (16, 160),
            "cities": (8, 120),
            "countries": (3, 30),
            "languages": (3, 20),
            "jobs": (6, 12),
            "corpus_sentences": (1, 10_000_000),
            "train_rows": (12, 4_000),
            "validation_rows": (12, 2_000),
            "test_rows": (12, 2_000),
            "train_sentences": (12, 4_000),
            "validation_sentences": (12, 2_000),
            "test_sentences": (12, 2_000),
            "max_tokens": (40, 4_096),
            "fact_share": (0.0, 1.0),
            "fact_skew": (0.0, 1.0),
            "held_out_share": (0.0, 0.5),
            "seen_share": (0.3, 1.0),
            "label_noise": (0.0, 1.0),
            "difficulty": (0.0, 1.0),
        }
        for key, (low, high) in limits.items():
            value = getattr(self, key)
            integral = isinstance(low, int)
            right_type = isinstance(value, int) if integral else isinstance(value, (int, float))
            if not right_type or isinstance(value, bool) or not low <= value <= high:
                kind = "a whole number" if integral else "a number"
                raise ValueError(f"world.{key} is {value!r}: set it to {kind} from {low} to {high}")
        if self.people % 2:
            raise ValueError(f"world.people is {self.people}: set it to an even number, half are women")
        if self.cities < 2 * self.countries:
            raise ValueError(
                f"world.cities is {self.cities}: set it to at least 2 x world.countries = {2 * self.countries}, "
                "so that countries have cities besides their capital"
            )
