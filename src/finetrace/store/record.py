"""Small nested values as one file: what figures are drawn from. No pickle: arrays as .npy in a zip, the rest as JSON.

Values: str, int, float, bool, None, numpy arrays (not of Python objects) and scalars, lists, tuples, dicts, and
dataclasses that the reader names. Equal values give equal bytes, whatever the order of an array in memory. A numpy
scalar, a named tuple and a subclass of list or dict come back as the plain value.
"""

import dataclasses
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetrace.errors import FinetraceError

NAME = "measured.npz"


def write_record(path: Path, value: Any) -> None:
    """Write a value. Raises TypeError for what it cannot hold."""
    arrays: list[np.ndarray[Any, Any]] = []
    structure = json.dumps(_plain(value, arrays))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("structure.json"), structure)  # ZipInfo's own date, the same always
        for number, array in enumerate(arrays):
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{number}.npy"), content.getvalue())


def read_record(path: Path, types: Sequence[type] = ()) -> Any:
    """Read a value; types: dataclasses that may stand in it. Raises FinetraceError for damage or unknown classes."""
    try:
        with zipfile.ZipFile(path) as archive:
            structure = json.loads(archive.read("structure.json"))

            def array(number: int) -> Any:
                return np.load(io.BytesIO(archive.read(f"{number}.npy")), allow_pickle=False)

            return _value(structure, array, {known.__name__: known for known in types}, path)
    except (OSError, EOFError, LookupError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
        # also TypeError: fields that the class no longer has; RuntimeError: damaged flags of the archive
        raise FinetraceError(f"{path}: cannot be read ({error}); delete its folder and run its stage again") from error


def _plain(value: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    """JSON in which everything but texts, whole numbers, booleans and null is a list that begins with its kind."""
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise TypeError("a record cannot hold an array with a mask")
        if value.dtype.hasobject:
            raise TypeError(f"a record cannot hold an array of {value.dtype}; give it a type, or make it a list")
        arrays.append(np.asarray(value, order="C"))
        return ["array", len(arrays) - 1]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return ["float", value.hex()]  # also nan and inf, which JSON lacks
    if isinstance(value, list | tuple):
        return ["list" if isinstance(value, list) else "tuple", *(_plain(v, arrays) for v in value)]
    if isinstance(value, dict):
        return ["dict", *([_plain(k, arrays), _plain(v, arrays)] for k, v in value.items())]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [f.name for f in dataclasses.fields(value) if f.init]
        return ["class", type(value).__name__, *([name, _plain(getattr(value, name), arrays)] for name in fields)]
    raise TypeError(f"a record cannot hold {type(value).__name__}")


def _value(plain: Any, array: Any, types: dict[str, type], path: Path) -> Any:
    if not isinstance(plain, list):
        return plain
    kind, *contents = plain
    if kind == "array":
        return array(contents[0])
    if kind == "float":
        return float.fromhex(contents[0])
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(_value(v, array, types, path) for v in contents)
    if kind == "dict":
        return {_value(k, array, types, path): _value(v, array, types, path) for k, v in contents}
    name, *fields = contents
    if name not in types:
        raise FinetraceError(f"{path}: holds a {name}, which its reader does not know; run its stage again")
    return types[name](**{field: _value(v, array, types, path) for field, v in fields})
