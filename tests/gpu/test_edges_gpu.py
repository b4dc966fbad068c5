"""Edge probes on a GPU: the numbers of the CPU, the same ones at every run, and each probe as if it were alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.edge_data import edge_data
from tests.edge_stage import edges_stage, run_stage, values_of

from finetrace.lenses.edges.network import Probe
from finetrace.lenses.edges.recipe import Recipe
from finetrace.lenses.edges.scoring import score_probes
from finetrace.lenses.edges.training import train_probes

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

RECIPE = Recipe(hidden=8, projection=4, max_steps=60, validate_every=20, batch_sentences=8, select="last",
                halve_patience=0)
PROBES = [Probe(kind, layer) for kind in ("layer", "mix") for layer in range(3)]


@pytest.mark.parametrize("pooling", ["attention", "mean", "max", "endpoint"])
def test_probes_agree_with_the_cpu_and_repeat(pooling):
    from finetrace.models.device import set_up

    set_up(1)
    data = edge_data(sentences=30, dim=16, dtype=np.float32, sets=True)
    recipe = replace(RECIPE, pooling=pooling)
    cpu, gpu, again = (train_probes(data, None, PROBES, recipe, seed=1, device=device)
                       for device in ("cpu", "cuda", "cuda"))
    for one, two, three in zip(cpu, gpu, again, strict=True):
        for name, value in one.parameters.items():
            np.testing.assert_allclose(two.parameters[name], value, atol=2e-4, err_msg=f"{one.probe.name} {name}")
            np.testing.assert_allclose(three.parameters[name], two.parameters[name], atol=1e-5)
    hits = [score_probes(cpu, data, recipe, device=device).hits for device in ("cpu", "cuda")]
    assert (hits[0] != hits[1]).mean() < 0.01


def test_a_probe_alone_equals_the_same_probe_in_the_batch_with_dropout():
    data = replace(edge_data(sentences=30, dim=16, dtype=np.float32))
    data = replace(data, states=torch.from_numpy(data.states).cuda())
    recipe = replace(RECIPE, dropout=0.3, max_steps=100, clip=1.0)
    together = train_probes(data, None, PROBES, recipe, seed=1, device="cuda")
    alone, = train_probes(data, None, PROBES[4:5], recipe, seed=1, device="cuda")
    assert set(alone.parameters) == set(together[4].parameters) != set()
    for name, value in alone.parameters.items():
        np.testing.assert_allclose(together[4].parameters[name], value, atol=1e-5, err_msg=name)


def test_the_stage_runs_on_the_gpu(tmp_path):
    out = run_stage(edges_stage(tmp_path, {"pairs": {"spans": 2}}, checkpoints="ends", precision="auto"))
    assert (values_of(out, statistic="f1") >= 0).all()
