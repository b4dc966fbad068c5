"""Hidden states on a GPU are those of the CPU, to the precision asked for."""

import numpy as np
import pytest
import torch
from tests.training_fixtures import bert_config, model_folder, task_folder

from finetrace.inference.extract import extract
from finetrace.models.load import forward_names, load_encoder, load_tokenizer
from finetrace.models.rows import Collator, encode

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-3), (True, 0.1)])
def test_states_of_gpu_and_cpu_agree(tmp_path, bf16, tolerance):
    folder = model_folder(tmp_path / "model", bert_config(width=64))
    task = task_folder(tmp_path / "task", {"train": 64}, pairs=True)
    model, tokenizer = load_encoder(folder), load_tokenizer(folder)
    rows = encode(task / "train.parquet", tokenizer, 30, forward_names(model) | {"attention_mask"})
    offsets = np.cumsum(rows.lengths) - rows.lengths
    found = {}
    for device, precision in (("cpu", False), ("cuda", bf16)):
        (tmp_path / device).mkdir()
        collator = Collator(tokenizer, 8 if device == "cuda" else None)
        extract(model.to(device), rows, collator, tmp_path / device, vectors=["cls", "mean"],
                offsets=offsets, dtype="float32", batch_tokens=256, bf16=precision)
        found[device] = {p.stem: np.load(p) for p in (tmp_path / device).glob("*.npy")}
    assert set(found["cuda"]) == {"cls", "mean"}
    for kind, values in found["cuda"].items():
        np.testing.assert_allclose(values, found["cpu"][kind], atol=tolerance)
