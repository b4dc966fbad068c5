"""The French study's twelve arrays in one .npy file: order, shapes, damage."""

from pathlib import Path

import numpy as np
import pytest

from finetrace.errors import FinetraceError
from finetrace.store.cls_arrays import read_cls_arrays


def arrays(layers: int = 5, train: int = 7, test: int = 9, dim: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(rows, dim)).astype(np.float32) for rows in [train] * layers + [test] * layers]
    return [*vectors, np.arange(train) % 2, np.arange(test) % 2]


def write(path: Path, values: list[np.ndarray]) -> Path:
    with open(path, "wb") as stream:
        for one in values:
            np.save(stream, one)
    return path


def test_twelve_arrays_come_back_in_their_documented_order(tmp_path: Path) -> None:
    values = arrays()
    found = read_cls_arrays(write(tmp_path / "flaubert_raw.npy", values))
    assert found.layers == (5, 7, 9, 11, 12)
    np.testing.assert_array_equal(found.train, np.stack(values[:5]))
    np.testing.assert_array_equal(found.test, np.stack(values[5:10]))
    np.testing.assert_array_equal(found.train_labels, values[10])
    np.testing.assert_array_equal(found.test_labels, values[11])
    assert found.train.dtype == np.float32 and found.train_labels.dtype == np.int64


def test_other_layers_can_be_named(tmp_path: Path) -> None:
    found = read_cls_arrays(write(tmp_path / "x.npy", arrays(2)), layers=(0, 3))
    assert found.layers == (0, 3) and found.test.shape == (2, 9, 4)


def test_a_truncated_file_names_the_array(tmp_path: Path) -> None:
    path = write(tmp_path / "x.npy", arrays())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FinetraceError, match=r"x.npy: array 12 of 12 \(test labels\) cannot be read"):
        read_cls_arrays(path)
    with pytest.raises(FinetraceError, match=r"array 8 of 12 \(test layer 9\) cannot be read"):
        read_cls_arrays(write(path, arrays()[:7]))


def test_what_goes_on_or_is_out_of_order_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FinetraceError, match="goes on after 12 arrays"):
        read_cls_arrays(write(tmp_path / "x.npy", [*arrays(), np.zeros(1)]))
    values = arrays()
    with pytest.raises(FinetraceError, match=r"train layer 5 has shape \(7, 4\), its labels \(9,\)"):
        read_cls_arrays(write(tmp_path / "x.npy", [*values[:10], values[11], values[10]]))
    with pytest.raises(FinetraceError, match=r"test layer 7 has shape \(9, 3\)"):
        read_cls_arrays(write(tmp_path / "x.npy", [*values[:6], values[6][:, :3], *values[7:]]))


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    with open(path, "wb") as stream:
        np.save(stream, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FinetraceError, match="array 1 of 12"):
        read_cls_arrays(path)
    with pytest.raises(FinetraceError, match="no such file"):
        read_cls_arrays(tmp_path / "absent.npy")
