"""One training on two GPUs is that on one, but for the last bits."""

from pathlib import Path

import pytest
import torch
from tests.group_jobs import COMPARED, assert_same, do, do_together, inputs

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("together")
    inputs(root)
    do_together(root)
    return root


@pytest.mark.parametrize("name", COMPARED)
def test_two_gpus_give_what_one_gives(root: Path, name: str) -> None:
    assert_same(name, do(root, root / "one", name), root / "two" / name, 0.03 if name == "bf16" else 1e-4)
