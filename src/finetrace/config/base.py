"""Settings as frozen dataclasses: one decorator, one way to read them, errors that name the key and the fix."""

import dataclasses
import difflib
import types
import typing
from functools import lru_cache
from typing import Any, TypeVar, dataclass_transform

from finetrace.errors import FinetraceError

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """A frozen dataclass whose unknown keys and infinite numbers are errors; a number that stands for a name is a
    text."""
    cls.__pydantic_config__ = {  # type: ignore[attr-defined]
        "extra": "forbid", "allow_inf_nan": False, "coerce_numbers_to_str": True}
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
    from pydantic import ValidationError

    if wrong := _truths(cls, value):
        raise FinetraceError("\n".join(f"{where}: {key}: a number is needed, not {value}" for key, value in wrong))
    try:
        kind: Any = cls
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        problems = [_explain(cls, problem, where) for problem in _one_by_key(error.errors(include_url=False))]
        raise FinetraceError("\n".join(dict.fromkeys(problems))) from None


@lru_cache
def _adapter(cls: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _one_by_key(problems: list[Any]) -> list[Any]:
    """One problem per key: pydantic has one for each kind of value that the key can have, at KEY.str, KEY.list[int],
    ..."""
    merged: dict[tuple[Any, ...], Any] = {}
    for problem in problems:
        place = tuple(part for part in problem["loc"] if part == "[key]" or not (isinstance(part, str) and "[" in part))
        if place[-1:] and place[-1] in ("str", "int", "float", "bool") and len(problems) > 1:
            place = place[:-1]
        if (first := merged.get(place)) is None:
            merged[place] = {**problem, "loc": place}
        elif problem["msg"] not in first["msg"]:
            first["msg"] += " or " + problem["msg"].removeprefix("Input should be ")
    return list(merged.values())


def _explain(cls: Any, problem: Any, where: str) -> str:
    place = [str(part) for part in problem["loc"]]
    names_key = place[-1:] == ["[key]"]
    place = place[:-1] if names_key else place
    key = ".".join(place)
    if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _fields_at(cls, place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"{where}: unknown key {key!r}; {hint}"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    value = problem.get("input")
    shown = "" if isinstance(value, dict | list) or problem["type"] == "value_error" else f" (got {value!r})"
    if problem["type"] in ("missing", "missing_argument"):
        return f"{where}: key {key!r} is missing; add it"
    if problem["type"] == "string_type" and isinstance(value, bool):
        return f"{where}: {key}: {str(value).lower()} is a truth value, and a text is needed; put it in quotes"
    if names_key or problem["type"] == "invalid_key":
        return f"{where}: {key}: is no name; write a text, in quotes where it could be something else"
    return f"{where}: {key + ': ' if key else ''}{message}{shown}"


def _truths(kind: Any, value: Any, place: str = "") -> list[tuple[str, bool]]:
    """Key and value of each truth value that stands for a number, which would silently be 0 or 1."""
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    if isinstance(value, bool):
        return [(place, value)] if {int, float} & set(kinds) and not {bool, Any} & set(kinds) else []
    inner: list[tuple[Any, Any, Any]] = []  # key, kind and value of what lies within
    for kind_part in kinds:
        origin, parts = typing.get_origin(kind_part), typing.get_args(kind_part)
        if isinstance(value, dict) and dataclasses.is_dataclass(kind_part):
            hints = typing.get_type_hints(kind_part)
            inner += [(key, hints[key], part) for key, part in value.items() if key in hints]
        elif isinstance(value, dict) and origin is dict:
            inner += [(key, parts[1], part) for key, part in value.items()]
        elif isinstance(value, list) and origin in (list, tuple):
            part_kinds = [*parts] if origin is tuple and parts[-1] is not ... else [parts[0]] * len(value)
            inner += [(number, part_kinds[number], part) for number, part in enumerate(value[: len(part_kinds)])]
    return [truth for key, kind_part, part in inner
            for truth in _truths(kind_part, part, f"{place}.{key}" if place else str(key))]


def _fields_at(cls: Any, place: list[str]) -> list[str]:
    for part in place:  # a field, a name in dict[str, Settings], or a number in tuple[Settings, ...]
        hint = typing.get_type_hints(cls).get(part) if dataclasses.is_dataclass(cls) else next(
            (kind for kind in reversed(typing.get_args(cls)) if kind is not ...), None)
        kinds = [hint, *typing.get_args(hint)] if typing.get_origin(hint) not in (dict, tuple) else [hint]
        cls = next((k for k in kinds if dataclasses.is_dataclass(k) or typing.get_origin(k) in (dict, tuple)), None)
        if cls is None:
            return []
    return [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def as_dict(value: Any) -> dict[str, Any]:
    """Settings as plain YAML values, for manifests and files."""
    return dataclasses.asdict(value)


def merge(settings_value: T, changes: dict[str, Any], where: str) -> T:
    """A copy of settings with some keys replaced; unknown keys are errors as in `parse`."""
    return parse(type(settings_value), {**as_dict(settings_value), **changes}, where)
