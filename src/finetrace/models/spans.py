from finetrace.models.linear import LinearClassifier, head_dropout  # noqa: F401  (goes away)
from finetrace.models.vectors import span_vectors  # noqa: F401

SpanClassifier = LinearClassifier
