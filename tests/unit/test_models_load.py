"""Every family of encoders is loaded as transformers loads it, and can be trained and recorded."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.families import FAMILIES, WITHOUT_TYPES, config_of, family_folders
from tests.training_fixtures import (
    bert_config,
    model_folder,
    recording,
    settings,
    task_folder,
    tokenizer,
)

from finetrace.errors import FinetraceError
from finetrace.models.load import (
    forward_names,
    head_parameters,
    load_classifier,
    load_tokenizer,
    longest_input,
    set_dropout,
)
from finetrace.store.tables import matrix
from finetrace.training.finetune import RunSeeds, finetune, prepare

NAMES = ["no", "maybe", "yes"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return family_folders(tmp_path_factory.mktemp("families"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return task_folder(tmp_path_factory.mktemp("pairs") / "task", {"train": 8, "validation": 6}, pairs=True)


def plain_classifier(folder, seed, classes=3):
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes, dtype=torch.float32).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_plain_transformers_model(folders, pairs, family):
    folder = folders(family)
    model = load_classifier(folder, NAMES, seed=9).eval()
    plain = plain_classifier(folder, 9)
    assert type(model) is type(plain)
    assert model.config.id2label == {0: "no", 1: "maybe", 2: "yes"}
    state = plain.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    rows = prepare(folder, pairs, settings(), model).splits["train"]
    assert ("token_type_ids" in rows.features) == (family not in WITHOUT_TYPES)
    for i in (0, 3):
        inputs = {k: torch.tensor([v[i]]) for k, v in rows.features.items()}
        with torch.no_grad():
            assert torch.equal(model(**inputs).logits, plain(**inputs).logits)
    other = load_classifier(folder, NAMES, seed=10)
    assert not torch.equal(head_parameters(model)[0], head_parameters(other)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_encoder_is_the_folders_and_the_head_is_what_is_outside(folders, family):
    folder = folders(family)
    model = load_classifier(folder, NAMES, seed=9)
    names = {id(p): n for n, p in model.named_parameters()}
    head = {names[id(p)] for p in head_parameters(model)}
    assert {n.rpartition(".")[0] for n in head} == set(FAMILIES[family][1])
    saved, encoder = load_file(folder / "model.safetensors"), model.base_model.state_dict()
    assert set(encoder) <= set(saved)
    assert all(torch.equal(saved[k], v) for k, v in encoder.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_longest_input_runs_and_one_token_more_does_not_fit(folders, family):
    folder = folders(family)
    model = load_classifier(folder, NAMES, seed=9).eval()
    theirs = tokenizer()
    longest = longest_input(model, theirs, 1000)
    assert longest == FAMILIES[family][2]
    assert longest_input(model, theirs, 20) == 20
    theirs.model_max_length = 12
    assert longest_input(model, theirs, 1000) == 12
    with torch.no_grad():
        logits = model(input_ids=torch.full((1, longest), 7),
                       attention_mask=torch.ones(1, longest, dtype=torch.long)).logits
    assert logits.isfinite().all()
    if family not in ("deberta-v2", "modernbert"):  # relative positions have no end
        with pytest.raises((IndexError, RuntimeError)), torch.no_grad():
            model(input_ids=torch.full((1, longest + 1), 7))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dropout_of_zero_leaves_none(folders, family):
    model = load_classifier(folders(family), NAMES, seed=9, dropout=0.0)
    assert all(m.p == 0 for m in model.modules() if isinstance(m, torch.nn.Dropout))
    model.train()
    inputs = {"input_ids": torch.tensor([[2, 7, 8, 9, 3]]), "attention_mask": torch.ones(1, 5, dtype=torch.long)}
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, model(**inputs).logits)


def test_dropout_can_be_raised_and_is_kept_by_default(folders):
    raised = load_classifier(folders("bert"), NAMES, seed=9, dropout=0.3)
    assert {m.p for m in raised.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}
    kept = load_classifier(folders("bert"), NAMES, seed=9)
    assert {m.p for m in kept.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}
    config = config_of("deberta-v2")
    set_dropout(config, 0.0)
    assert config.max_position_embeddings == 40, "nothing but dropout changes"


@pytest.mark.parametrize("family", FAMILIES)
def test_one_epoch_is_trained_and_recorded(folders, pairs, tmp_path, family):
    (tmp_path / "out").mkdir()
    finetune(folders(family), pairs, settings(batch_size=4, epochs=1.0, accumulate=2),
             recording(checkpoints="none", evaluate="none"), RunSeeds(1, 2, 3, 4),
             scratch=tmp_path / "scratch", out=tmp_path / "out", name=family)
    signals = pq.read_table(tmp_path / "out" / "signals.parquet")
    assert sorted(signals["example_id"].to_pylist()) == list(range(8))
    assert matrix(signals, "logits").shape == (8, 2)
    assert np.isfinite(matrix(signals, "logits")).all()
    history = pq.read_table(tmp_path / "out" / "history.parquet").to_pylist()
    assert [h["step"] for h in history] == [0, 1]
    assert all(h["gradient_norm"] > 0 and h["head_norm"] > 0 for h in history)


def test_a_tokenizer_without_token_types_serves_a_model_that_takes_them(tmp_path, pairs):
    folder = model_folder(tmp_path / "model", pairs_have_types=False)
    model = load_classifier(folder, NAMES, seed=1)
    assert "token_type_ids" in forward_names(model)
    assert set(prepare(folder, pairs, settings(), model).splits["train"].features) == {"input_ids", "attention_mask"}


def test_a_head_of_another_size_is_drawn_anew(tmp_path):
    plain_classifier(model_folder(tmp_path / "base"), 1, classes=5).save_pretrained(tmp_path / "five")
    assert load_classifier(tmp_path / "five", NAMES, seed=2).classifier.out_features == 3


def test_a_finetuned_head_of_the_same_size_is_kept(tmp_path):
    saved = plain_classifier(model_folder(tmp_path / "base"), 1)
    saved.save_pretrained(tmp_path / "three")
    assert torch.equal(load_classifier(tmp_path / "three", NAMES, seed=2).classifier.weight, saved.classifier.weight)


@pytest.mark.parametrize("damage", ["a tensor is missing", "a tensor has another shape"])
def test_weights_that_do_not_fit_their_config_are_refused(tmp_path, damage):
    folder = model_folder(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    if damage == "a tensor is missing":
        del weights[name]
    else:
        weights[name] = weights[name][:, :-1].contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(FinetraceError, match=r"do not fit its config.*layer.1.output.dense"):
        load_classifier(folder, NAMES, seed=1)


def test_an_encoder_saved_without_its_pooler_gets_one(tmp_path):
    from transformers import BertForMaskedLM

    torch.manual_seed(0)
    BertForMaskedLM(bert_config()).save_pretrained(tmp_path / "model")
    first, second = (load_classifier(tmp_path / "model", NAMES, seed=s) for s in (1, 1))
    assert any("pooler" in name for name in first.state_dict())
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())


def test_absent_or_unfit_folders_are_named(tmp_path):
    with pytest.raises(FinetraceError, match="nowhere"):
        load_classifier(tmp_path / "nowhere", NAMES, seed=1)
    with pytest.raises(FinetraceError, match="nowhere"):
        load_tokenizer(tmp_path / "nowhere")
    folder = model_folder(tmp_path / "model")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(FinetraceError, match="could not be loaded"):
        load_classifier(folder, NAMES, seed=1)


def test_a_tokenizer_without_padding_is_refused(tmp_path):
    unpadded = tokenizer()
    unpadded.pad_token = None
    unpadded.save_pretrained(tmp_path)
    bert_config().save_pretrained(tmp_path)
    with pytest.raises(FinetraceError, match="no padding token"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_with_more_words_than_the_model_is_refused(tmp_path, pairs):
    config = bert_config()
    config.vocab_size = 10
    folder = model_folder(tmp_path / "model", config)
    with pytest.raises(FinetraceError, match="do not belong together"):
        prepare(folder, pairs, settings(), load_classifier(folder, NAMES, seed=1))
