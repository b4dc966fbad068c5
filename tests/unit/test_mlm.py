"""What pre-training and adaptation share: the loss, micro-batches, the head on chosen tokens, heads that are carried
along."""

import numpy as np
import pytest
import torch
from tests.families import FAMILIES, TOKENS, config_of
from tests.masked_fixtures import finetuned, masked_model, pretrained
from tests.training_fixtures import WORDS, model_folder, sentences, tokenizer

from finetrace.config.training import TrainSettings
from finetrace.errors import FinetraceError
from finetrace.models.masked import load_masked
from finetrace.models.masking import IGNORED
from finetrace.models.saved import load_trained_encoder
from finetrace.training import mlm
from finetrace.training.mlm import (
    MaskedBatches,
    MaskedSeeds,
    Masker,
    Recipe,
    held_out_words,
    masked_loss,
    masked_plan,
    only_chosen,
    prepare_texts,
    train_masked,
)

SEED = MaskedSeeds(1, 2, 3)


def recipe(**changes):
    train = {"learning_rate": 3e-3, "batch_size": 16, "accumulate": 1, "max_steps": 8, "precision": "fp32"} | changes
    return Recipe(TrainSettings(**train), 1e-6, 0.2, 0.8, False, {"steps": []}, {"steps": []})


def texts_for(model, count=60, whole_words=False):
    return prepare_texts(sentences(count, 5)[0], tokenizer(), model, 4, max_tokens=20, whole_words=whole_words)


def output(logits):
    return type("Output", (), {"logits": logits})


@pytest.mark.parametrize("chosen_first", [False, True])
def test_the_mean_of_the_losses_is_the_mean_over_the_words(chosen_first):
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 6, 10), torch.full((4, 6), IGNORED)
    targets[0, 1], targets[0, 2], targets[3, 5] = 4, 7, 1
    expected = torch.nn.functional.cross_entropy(logits.reshape(-1, 10), targets.reshape(-1), ignore_index=IGNORED)
    if chosen_first:
        losses, nothing = masked_loss(output(logits[targets != IGNORED][None]), (targets[targets != IGNORED], 4 / 3))
    else:
        losses, nothing = masked_loss(output(logits), (targets, 4 / 3))
        assert losses.shape == (4,)
    assert nothing is None
    assert losses.sum().item() / 4 == pytest.approx(expected.item(), abs=1e-6)
    empty, _ = masked_loss(output(logits[:, :0] if chosen_first else logits),
                           (torch.full((0,) if chosen_first else (4, 6), IGNORED), 4.0))
    assert empty.sum().item() == 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_on_chosen_tokens_gives_the_logits_of_the_whole_batch(family):
    from transformers import AutoModelForMaskedLM

    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(config_of(family)).eval()
    ids = torch.randint(5, TOKENS, (3, 9))
    places = torch.tensor([0, 4, 10, 26])
    with torch.no_grad():
        whole = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        with only_chosen(model):
            chosen = model(input_ids=ids, attention_mask=torch.ones_like(ids), chosen=places).logits
        after = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert chosen.shape == (1, 4, TOKENS)
    torch.testing.assert_close(chosen[0], whole.reshape(-1, TOKENS)[places], atol=1e-5, rtol=1e-5)
    assert torch.equal(after, whole), "the hooks are gone"


def trained(tmp_path, name, small=mlm.SMALL_VOCABULARY, monkeypatch=None, **changes):
    model = masked_model(7, dropout=0.0)
    (tmp_path / name / "out").mkdir(parents=True)
    if monkeypatch:
        monkeypatch.setattr(mlm, "SMALL_VOCABULARY", small)
    torch.set_num_threads(1)
    evaluations = train_masked(model, texts_for(model), recipe(**changes), SEED, scratch=tmp_path / name, name=name,
                               out=tmp_path / name / "out")
    return model.state_dict(), evaluations


def assert_close(first, second):
    for (name, one), other in zip(first[0].items(), second[0].values(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4, msg=name)
    assert [e["loss"] for e in first[1]] == pytest.approx([e["loss"] for e in second[1]], abs=1e-4)


def test_micro_batches_and_the_choice_of_tokens_change_nothing_but_the_memory(tmp_path, monkeypatch):
    plain = trained(tmp_path, "plain")
    assert plain[1][-1]["loss"] < plain[1][0]["loss"]
    assert_close(trained(tmp_path, "split", accumulate=8), plain)
    sparse = trained(tmp_path, "sparse", 0, monkeypatch)
    assert_close((sparse[0], plain[1]), plain)
    assert_close(trained(tmp_path, "both", 0, monkeypatch, accumulate=16), sparse)


def test_a_micro_batch_has_its_part_of_the_masks_of_the_step():
    model = masked_model(0)
    texts = texts_for(model, 30)
    masker = Masker(tokenizer(), recipe(), sparse=False)
    whole = masked_plan(texts, recipe(batch_size=12), 1)
    split = masked_plan(texts, recipe(batch_size=12, accumulate=4), 1)
    make_whole, make_split = (MaskedBatches(texts.train, plan, masker, 9) for plan in (whole, split))
    for step, entry in enumerate(whole.batches[:4]):
        batch = make_whole(entry)
        parts = [make_split(e) for e in split.batches[4 * step:4 * step + 4] if len(e[1])]
        assert np.array_equal(np.concatenate([p["example_ids"] for p in parts]), batch["example_ids"])
        assert {p["labels"][1] for p in parts} == {batch["labels"][1]}
        place = 0
        for part in parts:
            rows, width = part["input_ids"].shape
            for name in ("input_ids", "attention_mask"):
                assert torch.equal(part[name], batch[name][place:place + rows, :width])
            assert torch.equal(part["labels"][0], batch["labels"][0][place:place + rows, :width])
            assert part["attention_mask"].sum(dim=1).max() == width
            place += rows
    again = MaskedBatches(texts.train, split, masker, 9)
    assert torch.equal(again(split.batches[9])["input_ids"],
                       make_split(split.batches[9])["input_ids"]), "from any step on"


def test_held_out_words_are_the_same_every_time_and_leave_the_model_alone():
    model = masked_model(0).train()
    texts = texts_for(model)
    measure = held_out_words(texts.held_out, Masker(tokenizer(), recipe(), sparse=False), 3)
    before = torch.random.get_rng_state()
    first = measure(model)
    assert measure(model) == first and model.training and torch.equal(torch.random.get_rng_state(), before)
    assert 0 <= first["accuracy"] <= 1 and first["loss"] == pytest.approx(np.log(TOKENS), abs=2)
    assert len(texts.held_out) == 2 and len(texts.train) == 58


def test_a_tokenizer_of_another_model_is_refused():
    small = masked_model(0)
    small.resize_token_embeddings(10)
    with pytest.raises(FinetraceError, match="but the model has only 10 embeddings"):
        texts_for(small)
    bare = tokenizer()
    bare.mask_token = None
    with pytest.raises(FinetraceError, match="no mask token"):
        prepare_texts(["a", "b"], bare, small, 0, max_tokens=9)


@pytest.mark.parametrize("method", ["ft", "lora", "lp"])
def test_a_fine_tuned_encoder_takes_the_head_of_its_model(tmp_path, method):
    pretrained(tmp_path)
    trajectory, base = finetuned(tmp_path, method=method), tmp_path / "models/toy"
    checkpoint = trajectory / "checkpoints/step-00000003"
    model, own = load_masked(checkpoint, base, base), load_masked(base)
    encoder = load_trained_encoder(checkpoint, base)
    ids = torch.arange(5, 25).reshape(2, 10)
    with torch.no_grad():
        torch.testing.assert_close(model.eval().base_model(ids).last_hidden_state, encoder(ids).last_hidden_state)
    moved = not torch.equal(model.bert.encoder.layer[0].attention.self.query.weight,
                            own.bert.encoder.layer[0].attention.self.query.weight)
    assert moved == (method != "lp")
    for name, values in own.cls.state_dict().items():
        if "decoder.weight" not in name:
            assert torch.equal(values, model.cls.state_dict()[name]), name
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight, (
        "tied to what was fine-tuned"
    )


def test_a_model_without_a_head_is_refused(tmp_path):
    encoder = model_folder(tmp_path / "encoder")
    with pytest.raises(FinetraceError, match=r"has no masked-word head: its weights lack cls\.predictions"):
        load_masked(encoder)
    pretrained(tmp_path)
    from tests.training_fixtures import bert_config

    other = model_folder(tmp_path / "wide", bert_config(width=32))
    with pytest.raises(FinetraceError, match="not of the architecture"):
        load_masked(other, tmp_path / "models/toy")


def test_dropout_of_the_training_can_differ_from_the_models_own(tmp_path):
    pretrained(tmp_path)
    assert load_masked(tmp_path / "models/toy").config.hidden_dropout_prob == 0.1
    assert load_masked(tmp_path / "models/toy", dropout=0.0).config.hidden_dropout_prob == 0.0
    assert len(WORDS) + 5 == TOKENS
