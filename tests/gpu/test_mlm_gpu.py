"""What masked-word training needs of a CUDA device: bf16, the head on chosen tokens, and the same bits after a
crash."""

import dataclasses
import signal

import numpy as np
import pytest
import torch
from tests.integration.test_pretrain import running_text
from tests.masked_fixtures import pretrained
from tests.training_drills import adapt_job, digests, pretrain_job, run
from tests.training_fixtures import sentences

from finetrace.config.models import AdaptSettings, PretrainSettings
from finetrace.store.tables import read_table, write_table

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
TEXT = PretrainSettings(corpus="text", vocabulary=80, pack="blocks", block_tokens=32, max_tokens=32, layers=3, width=64,
                        heads=4, feedforward=128, dropout=0.1, steps=40, batch_size=16, accumulate=2, whole_words=True,
                        evaluate={"every": 20}, checkpoints={"log": 5})
ADAPT = AdaptSettings(start="toy/pretrain", corpus="task", epochs=4.0, batch_size=16, accumulate=2, learning_rate=5e-3,
                      from_steps=[0, 9])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("gpu")
    write_table(root / "text" / "corpus.parquet", {"text": running_text(400)})
    pretrained(root)
    return root


@pytest.fixture(scope="module")
def calm(root):
    assert run(pretrain_job, root / "calm", TEXT, 1e9, None, "text") == 0
    return root / "calm"


def test_two_trainings_are_equal_bit_for_bit(root, calm):
    assert run(pretrain_job, root / "again", TEXT, 1e9, None, "text") == 0
    for part in ("trajectory", "model"):
        assert digests(root / "again" / part) == digests(calm / part)


def test_killed_and_continued_it_ends_with_the_same_bytes(root, calm):
    for fault in (("step", 20), ("state, without marker", 9)):
        assert run(pretrain_job, root / "killed", TEXT, 0, fault, "text") == -signal.SIGKILL
    assert run(pretrain_job, root / "killed", TEXT, 0, None, "text") == 0
    for part in ("trajectory", "model"):
        assert digests(root / "killed" / part) == digests(calm / part)


def test_it_learns_in_bf16_and_in_fp32(root, calm):
    assert run(pretrain_job, root / "fp32", dataclasses.replace(TEXT, precision="fp32"), 1e9, None, "text") == 0
    for folder in (calm, root / "fp32"):
        rows = read_table(folder / "trajectory" / "history.parquet").to_pylist()
        assert np.isfinite([r["loss"] for r in rows]).all()
        losses = [r["loss"] for r in rows if r["kind"] == "eval"]
        assert losses[-1] < losses[0] - 0.3


def test_several_adaptations_are_killed_and_continued(root):
    texts = sentences(120, 4)[0]
    assert run(adapt_job, root / "adapted", ADAPT, texts, 1e9) == 0
    for fault in (("step", 11), ("state, half written", 40)):
        assert run(adapt_job, root / "adapt-killed", ADAPT, texts, 0, fault) == -signal.SIGKILL, fault
    assert run(adapt_job, root / "adapt-killed", ADAPT, texts, 0) == 0
    for part in ("trajectory", "model"):
        assert digests(root / "adapt-killed" / part) == digests(root / "adapted" / part)


def test_a_usual_vocabulary_goes_through_the_head_where_it_is_asked_for(tmp_path):
    """The logits of the chosen tokens are those of the CPU, and the memory is a fraction."""
    from transformers import BertConfig, BertForMaskedLM

    from finetrace.training.mlm import only_chosen

    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=30_000, hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
                                       intermediate_size=256)).eval()
    ids, places = torch.randint(5, 30_000, (64, 128)), torch.arange(0, 64 * 128, 7)
    with torch.no_grad():
        expected = model(input_ids=ids[:2]).logits.reshape(-1, 30_000)[:128:7]
        model.cuda()
        torch.cuda.reset_peak_memory_stats()
        model(input_ids=ids.cuda())
        whole = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        with only_chosen(model):
            found = model(input_ids=ids.cuda(), chosen=places.cuda()).logits[0]
        assert torch.cuda.max_memory_allocated() < 0.4 * whole
    torch.testing.assert_close(found[:len(expected)].cpu(), expected, atol=2e-3, rtol=1e-3)
