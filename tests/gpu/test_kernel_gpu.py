"""The neural tangent kernel on a GPU is that of the CPU."""

import numpy as np
import pytest
import torch
from tests.kernel_models import family_batches, family_model, far

from finetrace.lenses.kernel.ntk import ntk, ntk_vector_product

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
@pytest.mark.parametrize("family", ["bert", "roberta", "albert", "deberta-v2", "modernbert"])
def test_kernels_of_gpu_and_cpu_agree(family, dtype, tolerance):
    model, batches, others = family_model(family), family_batches(family), family_batches(family, ((3, 6),), seed=7)
    expected = ntk(model, batches, others, parameters="all", dtype=torch.float64)
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    with torch.autocast("cuda", torch.bfloat16):
        found = ntk(model.cuda(), batches, others, parameters="all", dtype=dtype)
    assert torch.backends.cuda.matmul.allow_tf32, "put back as it was"
    torch.backends.cuda.matmul.allow_tf32 = allowed
    assert far(found.pretrain_effective, expected.pretrain_effective) < tolerance
    assert far(found.ft_effective, expected.ft_effective) < tolerance


def test_products_of_gpu_and_cpu_agree():
    model, batches, delta = family_model("bert"), family_batches("bert"), np.random.default_rng(0).normal(size=(5, 3))
    expected = ntk_vector_product(model, batches, delta, parameters="all", dtype=torch.float64)
    found = ntk_vector_product(model.cuda(), batches, delta, parameters="all", dtype=torch.float64)
    assert far(found.ft_effective, expected.ft_effective) < 1e-11 and far(found.features, expected.features) < 1e-11
