"""Cloze on a GPU: ranks of the CPU but for rounding, the same at every run; maps as good as those of the CPU."""

import numpy as np
import pytest
import torch
from tests.training_fixtures import SPECIAL, WORDS, bert_config, sentences, tokenizer

from finetrace.inference.masked import mask_texts
from finetrace.inference.prompts import Prompts
from finetrace.lenses.cloze.settings import ClozeSettings, HeadsSettings, TunedSettings
from finetrace.lenses.cloze.states import fit_readouts, rank_facts
from finetrace.models.masked_head import masked_head_of
from finetrace.models.rows import Collator, Encoded

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
SETTINGS = ClozeSettings(heads=HeadsSettings(steps=60, batch=64, learning_rate=0.01),
                         tuned=TunedSettings(steps=60, batch=64))
INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


def prompts_of(count):
    encoded = tokenizer()(sentences(count, 7, shortest=4)[0])
    ids, random = [list(row) for row in encoded["input_ids"]], np.random.default_rng(1)
    at = np.array([int(random.integers(1, len(row) - 1)) for row in ids])
    gold = np.array([row[place] for row, place in zip(ids, at, strict=True)])
    for row, place in zip(ids, at, strict=True):
        row[place] = 4
    features = {k: encoded[k] for k in encoded.keys() if k in INPUTS} | {"input_ids": ids}
    rows = Encoded(features, gold, np.arange(count), np.array([len(row) for row in ids]))
    candidates = [np.unique([g, 5, 9, 30]) for g in gold]
    return Prompts(rows, np.arange(count), at, gold, candidates, {})


def test_ranks_and_maps_agree_with_the_cpu(tmp_path):
    from transformers import BertForMaskedLM

    from finetrace.models.device import set_up

    set_up(1)
    torch.manual_seed(0)
    model = BertForMaskedLM(bert_config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    prompts = prompts_of(200)
    texts = {name: mask_texts(sentences(n, s)[0], tokenizer(), max_length=16, inputs=INPUTS, seed=1)
             for name, n, s in (("train", 400, 2), ("held_out", 80, 3))}
    collator, vocabulary = Collator(tokenizer(), side="right"), np.arange(len(SPECIAL), len(SPECIAL) + len(WORDS))
    found = []
    for device in ("cpu", "cuda", "cuda"):
        encoder, head = model.bert.to(device), masked_head_of(model).to(device)
        fitted = fit_readouts(encoder, head, texts, ["own", "trained", "tuned"], SETTINGS, collator, scratch=tmp_path,
                              seed=1)
        found.append((fitted, rank_facts(encoder, head, prompts, vocabulary, fitted, ["own", "trained", "tuned"],
                                         SETTINGS, collator)))
        model.cpu()
    (cpu_maps, cpu), (maps, first), (_, second) = found
    assert (cpu["own"].rank == first["own"].rank).mean() > 0.98 and np.abs(cpu["own"].rank
                                                                           - first["own"].rank).max() <= 1
    np.testing.assert_allclose(cpu["own"].log_prob, first["own"].log_prob, atol=1e-4)
    for name in ("trained", "tuned"):
        np.testing.assert_allclose(maps[name].loss, cpu_maps[name].loss, atol=0.02)
        assert (maps[name].loss <= maps[name].first_loss).all()
    for name in first:  # the same at every run
        for field in ("rank", "rank_full", "rank_candidates", "log_prob", "top"):
            np.testing.assert_array_equal(getattr(first[name], field), getattr(second[name], field))
