"""Records: every kind of value comes back as it was; equal values are equal bytes; what cannot be read is a clear
error."""

import math
import zipfile
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetrace.errors import FinetraceError
from finetrace.store.record import read_record, write_record


@dataclass(frozen=True)
class Inner:
    values: np.ndarray
    name: str = "x"


@dataclass
class Outer:
    inner: Inner
    parts: dict[str, Inner]
    doubled: int = field(init=False, default=0)
    times: int = 2

    def __post_init__(self) -> None:
        self.doubled = 2 * self.times


TYPES = (Inner, Outer)


def again(tmp_path: Path, value: Any, types: tuple[type, ...] = TYPES) -> Any:
    write_record(tmp_path / "one.npz", value)
    return read_record(tmp_path / "one.npz", types)


def assert_equal(found: Any, value: Any) -> None:
    """The same types all the way down; nan equals nan."""
    assert type(found) is type(value)
    if isinstance(value, np.ndarray):
        assert found.dtype == value.dtype and found.shape == value.shape
        np.testing.assert_array_equal(found, value)
    elif isinstance(value, list | tuple):
        assert len(found) == len(value)
        for one, other in zip(found, value, strict=True):
            assert_equal(one, other)
    elif isinstance(value, dict):
        for (key, one), (other_key, other) in zip(found.items(), value.items(), strict=True):
            assert_equal(key, other_key)
            assert_equal(one, other)
    elif isinstance(value, Inner | Outer):
        assert_equal(vars(found), vars(value))
    elif isinstance(value, float) and math.isnan(value):
        assert math.isnan(found)
    else:
        assert found == value


@pytest.mark.parametrize("value", [
    None, True, False, 0, -1, 10**40, "", "Bäume\n\"quoted\" \ud800", "array", 0.1, -0.0, 5e-324, math.inf, -math.inf,
    math.nan, [], (), {}, [1, [2, (3, [])]], ["array", 0], ("dict", ["float", "0x1p+0"]), [None, True, 1, 1.0, "1"],
    {"b": 1, "a": {"c": 2}}, {1: "int", "1": "text", None: 0, 2.5: "x", (1, "a", (None, 2.0)): []},
    {True: 1, "True": 2}, {("level", "last"): {"spearman": 1.0}},
], ids=repr)
def test_plain_values(tmp_path: Path, value: Any) -> None:
    assert_equal(again(tmp_path, value), value)


def test_minus_zero_keeps_its_sign_and_the_order_of_keys_stays(tmp_path: Path) -> None:
    assert math.copysign(1, again(tmp_path, -0.0)) == -1
    assert list(again(tmp_path, {3: 0, 1: 0, 2: 0})) == [3, 1, 2]


@pytest.mark.parametrize("array", [
    np.arange(6).reshape(2, 3), np.array([1.5, math.nan, math.inf, -math.inf, -0.0]), np.float32([[0.1]]),
    np.float16([1, 2]),
    np.array([True, False]), np.array(["a", "bcd", "Bäume"]), np.array([], dtype="<U7"), np.array(["x"], dtype="<U20"),
    np.array(3.5), np.array("text"), np.array(True), np.empty(0), np.empty((0, 3), dtype=np.int32), np.empty((2, 0, 4)),
    np.array([1, 2], dtype=">i2"), np.array(["2020-01-01"], dtype="datetime64[D]"), np.array([b"ab"]),
    np.array([1 + 2j]), np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", "<f8")]), np.uint64([2**64 - 1]),
], ids=lambda array: f"{array.dtype}-{array.shape}")
def test_arrays_keep_type_and_shape(tmp_path: Path, array: np.ndarray) -> None:
    found = again(tmp_path, {"one": array, "many": [array, (array,)]})
    assert_equal(found, {"one": array, "many": [array, (array,)]})
    assert found["one"].flags.writeable and found["one"] is not found["many"][0]


def test_arrays_of_any_order_in_memory_and_from_a_file_are_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "on-disk.npy", np.arange(4))
    mapped = np.load(tmp_path / "on-disk.npy", mmap_mode="r")
    values = np.arange(12.0).reshape(3, 4)
    for given, expected in ((np.asfortranarray(values), values), (values.T, values.T),
                            (values[::2, ::-1], values[::2, ::-1]),
                            (np.broadcast_to(np.int64(3), (2, 2)), np.full((2, 2), 3)), (mapped, np.arange(4))):
        assert_equal(again(tmp_path, given), np.array(expected))


def test_numpy_scalars_become_plain_values(tmp_path: Path) -> None:
    given = [np.float64(0.1), np.float32(0.5), np.int64(3), np.bool_(True), np.str_("a"), np.float64("nan")]
    assert_equal(again(tmp_path, given), [0.1, 0.5, 3, True, "a", math.nan])
    assert_equal(again(tmp_path, {np.str_("a"): 1, np.int64(2): 2, (np.float64(1.5), np.bool_(False)): 3}),
                 {"a": 1, 2: 2, (1.5, False): 3})


def test_subclasses_become_plain_values(tmp_path: Path) -> None:
    class Names(list):
        pass

    point = namedtuple("point", "x y")(1, 2.0)
    assert_equal(again(tmp_path, [Names([1]), point, OrderedDict(a=1)]), [[1], (1, 2.0), {"a": 1}])


def test_dataclasses_within_each_other(tmp_path: Path) -> None:
    inner = Inner(np.array([1.0, np.nan]), "é")
    value = {"all": [Outer(inner, {"a": inner, "b": Inner(np.empty(0))}, times=3)], ("k", 1): inner,
             "same": (inner, inner)}
    found = again(tmp_path, value)
    assert_equal(found, value)
    assert found["all"][0].doubled == 6  # what is not given to __init__ is worked out again


def test_equal_values_are_equal_bytes(tmp_path: Path) -> None:
    def made(name: str, values: np.ndarray) -> bytes:
        write_record(tmp_path / name, {"a": values, "b": Inner(values), "c": np.float64(0.1), "d": [math.nan]})
        return (tmp_path / name).read_bytes()

    values = np.arange(6.0).reshape(2, 3)
    assert made("a", values) == made("b", np.asfortranarray(values)) == made("c", np.repeat(values, 2, axis=1)[:, ::2])
    assert made("d", values + 1) != made("a", values)


def test_the_value_is_not_changed_and_later_changes_do_not_matter(tmp_path: Path) -> None:
    values = np.arange(3)
    value = {"a": values, "b": [values]}
    write_record(tmp_path / "one", value)
    values[:] = 0
    assert value["a"] is values and read_record(tmp_path / "one")["b"][0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("value", "message"), [
    ({1, 2}, "cannot hold set"), (b"x", "cannot hold bytes"), (Path("x"), "Path"), (1j, "complex"),
    ([object()], "object"), (Inner, "cannot hold type"), (range(3), "range"), ({"a": {"b": lambda: 0}}, "function"),
    (np.array(["a", None], dtype=object), "array of object; give it a type, or make it a list"),
    (np.ma.masked_array([1, 2], [True, False]), "with a mask"), (np.datetime64("2020-01-01"), "date"),
], ids=lambda value: type(value).__name__)
def test_what_cannot_be_held_is_refused_before_anything_is_written(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        write_record(tmp_path / "one.npz", value)
    assert not (tmp_path / "one.npz").exists()


def test_an_unknown_class_is_named(tmp_path: Path) -> None:
    write_record(tmp_path / "one.npz", {"a": [Inner(np.arange(2))]})
    for types in ((), (Outer,)):
        with pytest.raises(FinetraceError,
                           match=r"one.npz: holds a Inner, which its reader does not know; run its stage again"):
            read_record(tmp_path / "one.npz", types)


def test_a_class_that_has_changed_is_an_error_with_the_fix(tmp_path: Path) -> None:
    write_record(tmp_path / "one.npz", Inner(np.arange(2)))
    other = dataclass(type("Inner", (), {"__annotations__": {"amounts": np.ndarray}}))
    with pytest.raises(FinetraceError, match=r"one.npz: cannot be read .*values.*delete its folder and run its stage "
                                             r"again"):
        read_record(tmp_path / "one.npz", (other,))


def test_a_damaged_file_is_refused_and_no_damage_goes_unseen(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    value = {"values": np.arange(3, dtype=np.int8), "number": 0.1}
    write_record(path, value)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FinetraceError,
                           match=r"one.npz: cannot be read .*delete its folder and run its stage again"):
            read_record(path)
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1:])
        try:
            assert_equal(read_record(path), value)  # a byte that decides nothing, such as a date
        except FinetraceError:
            pass


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    for read in (lambda: None, lambda: path.mkdir()):
        read()
        with pytest.raises(FinetraceError, match="cannot be read"):
            read_record(path)
    path.rmdir()
    np.savez(path, values=np.arange(3))
    with pytest.raises(FinetraceError, match="cannot be read"):
        read_record(path)
    for structure in ("[]", '["array", 7]', '["float", "x"]', '["dict", [1]]', '["float"]', '["class", "Inner", 3]',
                      "{", "[[1]]"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("structure.json", structure)
        with pytest.raises(FinetraceError):
            read_record(path, TYPES)


def test_no_code_is_run_from_a_record(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "one.npz", "w") as archive:
        archive.writestr("structure.json", '["array", 0]')
        with archive.open("0.npy", "w") as stream:
            np.save(stream, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(FinetraceError, match="allow_pickle"):
        read_record(tmp_path / "one.npz")
