"""Settings as frozen dataclasses: one decorator, one way to read them, errors that name the key and the fix."""

import dataclasses
import difflib
from typing import Any, TypeVar, dataclass_transform

from finetrace.errors import FinetraceError

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """A frozen dataclass whose unknown keys are errors."""
    cls.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True)(cls)


def require(condition: bool, message: str) -> None:
    """For `__post_init__`: reject a value or a contradictory pair; the message says what to change."""
    if not condition:
        raise ValueError(message)


def parse(cls: type[T], value: Any, where: str) -> T:
    """Build settings from YAML values.

    where: file and key prefix for messages, e.g. "params.yaml: train".
    Raises FinetraceError naming every wrong key, what is wrong and the nearest known key.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(cls).validate_python(value)
    except ValidationError as error:
        problems = [_explain(cls, problem, where) for problem in error.errors(include_url=False)]
        raise FinetraceError("\n".join(problems)) from None


def _explain(cls: Any, problem: Any, where: str) -> str:
    place = [str(part) for part in problem["loc"]]
    key = ".".join(place)
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _fields_at(cls, place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"{where}: unknown key {key!r}; {hint}"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    got = problem.get("input")
    shown = "" if isinstance(got, dict | list) or problem["type"] == "value_error" else f" (got {got!r})"
    if problem["type"] in ("missing", "missing_argument"):
        return f"{where}: key {key!r} is missing; add it"
    return f"{where}: {key + ': ' if key else ''}{message}{shown}"


def _fields_at(cls: Any, place: list[str]) -> list[str]:
    import typing

    for part in place:  # a field, a name in dict[str, Settings], or a number in tuple[Settings, ...]
        found = typing.get_type_hints(cls).get(part) if dataclasses.is_dataclass(cls) else next(
            (kind for kind in reversed(typing.get_args(cls)) if kind is not ...), None)
        kinds = [found, *typing.get_args(found)] if typing.get_origin(found) not in (dict, tuple) else [found]
        cls = next((k for k in kinds if dataclasses.is_dataclass(k) or typing.get_origin(k) in (dict, tuple)), None)
        if cls is None:
            return []
    return [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def load_yaml(text: str) -> Any:
    """Plain YAML values; a key that stands twice is an error, where plain YAML would silently take the last."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            for i, (key, _) in enumerate(node.value):
                if key.value in keys[:i]:
                    problem = f"the key {key.value!r} stands twice; remove one"
                    raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            return node

    return yaml.load(text, Loader)


def as_dict(value: Any) -> dict[str, Any]:
    """Settings as plain YAML values, for manifests and files."""
    return dataclasses.asdict(value)


def merge(settings_value: T, changes: dict[str, Any], where: str) -> T:
    """A copy of settings with some keys replaced; unknown keys are errors as in `parse`."""
    return parse(type(settings_value), {**as_dict(settings_value), **changes}, where)
