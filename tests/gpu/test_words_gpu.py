"""Tasks of words and networks of probes on a GPU: the results of the CPU, and the same ones at every run."""

import numpy as np
import pytest
import torch
from tests.training_fixtures import model_folder, tokenizer
from tests.word_tasks import word_task_folder

from finetrace.lenses.probes.mlp import mlp_grid
from finetrace.models.load import forward_names, load_classifier
from finetrace.models.rows import Collator, encode

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_logits_and_gradients_of_marked_words_agree_and_repeat(tmp_path):
    from finetrace.models.device import set_up

    set_up(1)
    model = load_classifier(model_folder(tmp_path / "model"), ["a", "b"], seed=1, dropout=0.0, spans=2).eval()
    rows = encode(word_task_folder(tmp_path / "task", spans=2) / "train.parquet", tokenizer(), 30, forward_names(model))
    batch, found = Collator(tokenizer(), 8)(rows, range(24)), {}
    for run, device in enumerate(("cpu", "cuda", "cuda")):
        model.to(device).zero_grad()
        inputs = {k: v.to(device) for k, v in batch.items()}
        labels = inputs.pop("labels")
        logits = model(**inputs).logits
        torch.nn.functional.cross_entropy(logits, labels).backward()
        found[run] = [logits.detach().cpu(), *(p.grad.cpu() for p in model.parameters() if p.grad is not None)]
    assert len(found[0]) > 1, "no gradients"
    for cpu, first, second in zip(*found.values(), strict=True):
        torch.testing.assert_close(first, cpu, atol=1e-4, rtol=1e-3)
        assert torch.equal(first, second)


def test_networks_on_a_gpu_are_as_good_as_those_on_the_cpu():
    random = np.random.default_rng(0)
    y = np.arange(300) % 3
    X = random.normal(size=(2, 300, 20)).astype(np.float32)
    X[:, :, :3] += 1.5 * np.eye(3)[y]
    settings = {"hidden": [(16, 16), (32,)], "l2": [1e-3, 1.0], "seeds": range(3), "max_epochs": 60}
    cpu, gpu = (mlp_grid(X, y, **settings, device=device) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(gpu.held_out_accuracy, cpu.held_out_accuracy, atol=0.1)
