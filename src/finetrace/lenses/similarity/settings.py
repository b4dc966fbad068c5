"""Settings of the lens similarity."""

from typing import Literal

from finetrace.config.base import require, settings


@settings
class SimilaritySettings:
    """How similar the representations of the same examples are, at two checkpoints or in two models."""

    representations: list[Literal["cls", "mean", "tokens"]] = None  # type: ignore[assignment]
    """What an example is: a sentence by its vector `cls` or `mean`, or one of the `tokens` (special ones such as [CLS]
    left out). By default cls and tokens."""
    measures: list[Literal["cka", "svcca", "pwcca", "procrustes", "rsa"]] = None  # type: ignore[assignment]
    """Measures of similarity, all five by default; the heat maps show cka, or the first one where cka is left out."""
    variance: float = 0.99
    """Share of the variance that the leading directions of svcca keep."""
    rows: int = 1000
    """At most so many examples (sentences or tokens), chosen at random; the same ones at every layer and checkpoint."""
    groups: int = 20
    """Groups of sentences behind the 95 % intervals of cka: each is left out once."""
    rsa_rows: int = 200
    """At most so many of the examples for rsa, which compares all their pairs."""

    def __post_init__(self) -> None:
        defaults = {"representations": ["cls", "tokens"], "measures": ["cka", "svcca", "pwcca", "procrustes", "rsa"]}
        for key, value in defaults.items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, value)
            chosen = getattr(self, key)
            require(bool(chosen), f"{key}: is empty; write e.g. [{value[0]}]")
            require(len(set(chosen)) == len(chosen), f"{key}: {', '.join(chosen)} names something twice; remove one")
        require(0 < self.variance <= 1, f"variance: {self.variance} is not a share; use e.g. 0.99")
        require(self.rows >= 10, f"rows: {self.rows} examples are too few; take 10 or more")
        require(self.groups >= 2, f"groups: {self.groups} gives no interval; take 2 or more")
        require(self.rsa_rows >= 4, f"rsa_rows: {self.rsa_rows} examples are too few; take 4 or more")
