"""The classifier of marked words: against plain transformers, family by family, and through its folder."""

import json

import numpy as np
import pytest
import torch
from tests.families import FAMILIES, family_folders
from tests.training_fixtures import tokenizer
from tests.word_tasks import word_task_folder

from finetrace.errors import FinetraceError
from finetrace.models.linear import head_dropout
from finetrace.models.load import forward_names, head_parameters, load_classifier, load_encoder
from finetrace.models.rows import Collator, encode
from finetrace.models.saved import FACTS, HEAD, load_trained, save_classifier
from finetrace.models.vectors import span_vectors

NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return family_folders(tmp_path_factory.mktemp("families"))


def batch_of(tmp_path, model, spans):
    folder = word_task_folder(tmp_path / f"task{spans}", spans=spans)
    rows = encode(folder / "train.parquet", tokenizer(), 36, forward_names(model))
    index = [0, 5, 9, 2]
    batch = Collator(tokenizer())(rows, index)
    batch.pop("labels")
    return rows, index, batch


@pytest.mark.parametrize("spans", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_one_linear_layer_on_the_marked_words(folders, tmp_path, family, spans):
    from transformers import AutoModel

    model = load_classifier(folders(family), NAMES, seed=4, spans=spans).eval()
    rows, index, batch = batch_of(tmp_path, model, spans)
    with torch.no_grad():
        found = model.double()(**{k: v.double() if v.is_floating_point() else v for k, v in batch.items()}).logits
        plain, expected = AutoModel.from_pretrained(folders(family)).double().eval(), []
        for i in index:  # one sentence at a time, without padding
            inputs = {k: torch.tensor([v[i]]) for k, v in rows.features.items()}
            states = plain(**inputs).last_hidden_state[0]
            for example in rows.examples([i]):
                vector = torch.cat([states[a:b].mean(dim=0) for a, b in rows.targets.pieces[example]])
                expected.append(model.classifier.weight @ vector + model.classifier.bias)
    np.testing.assert_allclose(found.numpy(), torch.stack(expected).numpy(),
                               atol=2e-6)  # weights of a mean are float32 thirds


def test_span_vectors_are_means_in_full_precision_under_autocast():
    states = torch.full((1, 4, 2), 1.2345678)
    spans = torch.tensor([[[0.0, 1 / 3, 1 / 3, 1 / 3]]])
    with torch.autocast("cpu", torch.bfloat16):
        found = span_vectors(states, spans, torch.tensor([0]), 1)
        half = span_vectors(states.bfloat16(), spans, torch.tensor([0]), 1)
    assert found.dtype == half.dtype == torch.float32
    torch.testing.assert_close(found, states[:, 0], rtol=1e-6, atol=0)
    torch.testing.assert_close(half, states[:, 0].bfloat16().float(), rtol=1e-6, atol=0)


def test_the_head_is_what_the_seed_and_the_config_say(folders):
    first, same, other = (load_classifier(folders("bert"), NAMES, seed=s, spans=2) for s in (4, 4, 5))
    assert torch.equal(first.classifier.weight, same.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert first.classifier.weight.shape == (3, 32) and not first.classifier.bias.any()
    assert abs(float(first.classifier.weight.detach().std()) - first.config.initializer_range) < 0.005
    assert [tuple(p.shape) for p in head_parameters(first)] == [(3, 32), (3,)]
    assert load_classifier(folders("bert"), NAMES, seed=4, dropout=0.25, spans=1).dropout.p == 0.25
    assert {head_dropout(load_encoder(folders(f)).config) for f in FAMILIES} <= {0.0, 0.1}


def test_a_checkpoint_gives_the_classifier_and_its_encoder_back(folders, tmp_path):
    model = load_classifier(folders("distilbert"), NAMES, seed=4, spans=1).eval()
    _, _, batch = batch_of(tmp_path, model, 1)
    save_classifier(model, tmp_path / "kept")
    with torch.no_grad():
        again = load_trained(tmp_path / "kept")
        assert torch.equal(again(**batch).logits, model(**batch).logits)
        assert again.label_names == NAMES and again.training is False
        inputs = {k: v for k, v in batch.items() if k not in ("spans", "slots")}
        assert torch.equal(load_encoder(tmp_path / "kept")(**inputs).last_hidden_state,
                           model.encoder(**inputs).last_hidden_state)


@pytest.mark.parametrize("damage", ["cut", "shape", "facts"])
def test_a_damaged_head_is_an_error_that_names_the_folder(folders, tmp_path, damage):
    save_classifier(load_classifier(folders("bert"), NAMES, seed=4, spans=1), tmp_path)
    if damage == "cut":
        (tmp_path / HEAD).write_bytes((tmp_path / HEAD).read_bytes()[:40])
    elif damage == "shape":
        (tmp_path / FACTS).write_text(json.dumps({"spans": 2, "label_names": NAMES}))
    else:
        (tmp_path / FACTS).write_text("{}")
    with pytest.raises(FinetraceError, match=f"{tmp_path.name}: its head .* cannot be read"):
        load_trained(tmp_path)
