"""The original's folder of per-step logits (acceptance check A16 of the study)."""

import numpy as np
import pytest

from finetrace.errors import FinetraceError
from finetrace.store.logits_folder import load_logits


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {k: rng.normal(size=(3 if k == 11 else 4, 2)).astype(np.float32) for k in (0, 1, 2, 10, 11)}
    for k in (10, 2, 11, 0, 1):  # neither numeric nor lexical order
        np.save(tmp_path / f"logits_step_{k}.npy", arrays[k])
    return tmp_path, arrays


def test_steps_are_sorted_by_number_and_a_ragged_last_batch_is_kept(folder):
    path, arrays = folder
    logits, steps = load_logits(path)
    np.testing.assert_array_equal(logits, np.concatenate([arrays[k] for k in (0, 1, 2, 10, 11)]))
    assert steps.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [10] * 4 + [11] * 3
    assert logits.dtype == np.float64


def test_the_cut_off_is_inclusive(folder):
    _, steps = load_logits(folder[0], step_max=10)
    assert steps[-1] == 10 and len(steps) == 16


def test_bad_folders_name_the_file(folder, tmp_path_factory):
    path, _ = folder
    with pytest.raises(FinetraceError, match="has no logits_step"):
        load_logits(tmp_path_factory.mktemp("empty"))
    np.save(path / "logits_step_3.npy", np.zeros((4, 3), dtype=np.float32))
    with pytest.raises(FinetraceError, match=r"logits_step_3\.npy: has shape"):
        load_logits(path)
    (path / "logits_step_3.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(FinetraceError, match=r"logits_step_3\.npy: not a readable"):
        load_logits(path)
