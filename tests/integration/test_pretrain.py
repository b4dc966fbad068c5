"""Pre-training on the micro world and on any texts: exact resumption, and what the stage hands on."""

import dataclasses
import json
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.training_drills import digests, pretrain_job, run
from tests.training_fixtures import tokenizer, world_folder

from finetrace.config.models import PretrainSettings
from finetrace.errors import FinetraceError
from finetrace.models.load import load_classifier, load_tokenizer
from finetrace.store.checkpoints import list_weights
from finetrace.store.tables import read_table, write_table
from finetrace.training.pretrain import pretrain

SETTINGS = PretrainSettings(layers=2, width=16, heads=2, feedforward=32, dropout=0.1, steps=24, batch_size=16,
                            warmup=0.25,
                           evaluate={"every": 8})
TEXT = dataclasses.replace(SETTINGS, corpus="text", vocabulary=80, lowercase=True, pack="blocks", block_tokens=16,
                           accumulate=4, checkpoints={"log": 4}, whole_words=True, max_tokens=24, scheduler="linear")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pretrain")
    world_folder(root / "world")
    write_table(root / "text" / "corpus.parquet", {"text": running_text()})
    return root


def running_text(rows=90):
    """Paragraphs of made-up words, some of them frequent."""
    generator = np.random.default_rng(8)
    parts = ["ba", "ko", "ri", "tu", "en", "sha", "lo", "mi"]
    words = ["".join(generator.choice(parts, generator.integers(1, 4))) for _ in range(60)]
    return [" ".join(words[int(60 * u * u)] for u in generator.random(generator.integers(3, 30))) + "."
            for _ in range(rows)]


@pytest.fixture(scope="module")
def calm(root):
    assert run(pretrain_job, root / "calm", SETTINGS, 1e9) == 0
    return root / "calm"


def test_the_trajectory_is_like_any_other(calm):
    rows = read_table(calm / "trajectory" / "history.parquet").to_pylist()
    train, evaluations = ([r for r in rows if r["kind"] == k] for k in ("train", "eval"))
    assert [r["step"] for r in train] == list(range(24))
    assert [r["step"] for r in evaluations] == [0, 8, 16, 24]
    assert [train[s]["examples"] for s in (0, 8, 16)] == [0, 115, 230], "each of the 115 sentences once per epoch"
    assert evaluations[-1]["loss"] < evaluations[0]["loss"]
    assert read_table(calm / "trajectory" / "signals.parquet").num_rows == 0
    assert list(list_weights(calm / "trajectory" / "checkpoints")) == [0, 1, 2, 4, 8, 16, 24]
    metrics = json.loads((calm / "trajectory" / "metrics.json").read_text())
    assert metrics["validation/loss"] == evaluations[-1]["loss"]
    rates = [r["learning_rate"] for r in train]
    assert rates[0] == 0.0
    assert max(rates) == pytest.approx(2e-3)
    assert rates.index(max(rates)) == 6


def test_the_model_can_be_fine_tuned_with_dropout(calm):
    model = load_classifier(calm / "model", ["no", "yes"], 0)
    assert model.config.hidden_dropout_prob == 0.1
    assert model.config.classifier_dropout is None
    assert load_tokenizer(calm / "model").get_vocab() == tokenizer().get_vocab()
    last = load_file(calm / "trajectory" / "checkpoints" / "step-00000024" / "model.safetensors")
    for name, value in model.bert.state_dict().items():
        if "pooler" not in name:
            assert torch.equal(value, last[f"bert.{name}"]), name


@pytest.mark.parametrize("faults", [
    [("step", 12), ("state, without marker", 3)],
    [("weights being written", 4), ("table being written", 12)],
    pytest.param([("state, half written", 7), ("older state being removed", 3), ("step", 9)], marks=pytest.mark.slow),
    pytest.param([("tables being merged", 1), ("checkpoints being copied", 3)], marks=pytest.mark.slow),
], ids=lambda faults: " then ".join(f"{n} {c}" for n, c in faults))
def test_killed_and_continued_it_ends_with_the_same_bytes(root, calm, faults, request):
    where = root / "".join(c if c.isalnum() else "-" for c in request.node.name)
    for fault in faults:
        assert run(pretrain_job, where, SETTINGS, 0, fault) == -signal.SIGKILL, fault
    assert run(pretrain_job, where, SETTINGS, 0) == 0
    for part in ("trajectory", "model"):
        ours, wanted = digests(where / part), digests(calm / part)
        assert set(ours) == set(wanted)
        assert [n for n in wanted if ours[n] != wanted[n]] == []


@pytest.fixture(scope="module")
def calm_text(root):
    assert run(pretrain_job, root / "calm-text", TEXT, 1e9, None, "text") == 0
    return root / "calm-text"


def test_any_text_gives_a_model_with_its_own_tokenizer(root, calm_text):
    history = read_table(calm_text / "trajectory" / "history.parquet").to_pylist()
    evaluations = [r for r in history if r["kind"] == "eval"]
    assert evaluations[-1]["loss"] < evaluations[0]["loss"]
    assert list(list_weights(calm_text / "trajectory" / "checkpoints")) == [0, 1, 3, 8, 24]
    trained = load_tokenizer(calm_text / "model")
    assert len(trained) == 80 and trained.model_max_length == 24
    model = load_classifier(calm_text / "model", ["no", "yes"], 0)
    assert (model.config.max_position_embeddings, model.config.vocab_size) == (24, 80)
    assert not (calm_text / "trajectory" / "tokenizer").exists()


def test_a_pretraining_on_text_continues_after_a_kill(root, calm_text):
    where = root / "killed-text"
    for fault in (("weights about to appear", 1), ("step", 9), ("state, without marker", 6)):
        assert run(pretrain_job, where, TEXT, 0, fault, "text") == -signal.SIGKILL, fault
    assert run(pretrain_job, where, TEXT, 0, None, "text") == 0
    for part in ("trajectory", "model"):
        assert digests(where / part) == digests(calm_text / part)


def attempt(root, tmp_path, changes, corpus="text", **options):
    for name in ("out", "model"):
        (tmp_path / name).mkdir()
    return pretrain(dataclasses.replace(TEXT, **changes), root / corpus, 7, scratch=tmp_path / "s",
                    out=tmp_path / "out", model_out=tmp_path / "model", name="x", **options)


def test_rows_are_as_long_as_the_settings_say(root, tmp_path):
    facts = attempt(root, tmp_path, {"steps": 2, "pack": "none", "max_tokens": 16})
    assert load_classifier(tmp_path / "model", ["no", "yes"], 0).config.max_position_embeddings == 16
    texts = facts["texts"]
    assert (texts["train"], texts["validation"]) == (86, 4)
    assert 0 < texts["rows_cut"] <= 90 and texts["tokens_cut"] >= texts["rows_cut"], "it is said what was cut"


@pytest.mark.parametrize(("changes", "corpus", "words"), [
    ({"vocabulary": 5000}, "text", "vocabulary: 5000 tokens are more than the texts hold"),
    ({"max_tokens": 12, "block_tokens": 12, "vocabulary": 12}, "text",
     "vocabulary: 12 tokens are fewer than the letters"),
    ({}, "nowhere", "has neither corpus.parquet nor train.parquet"),
    ({}, "one", "1 text is left to learn from"),
    ({"block_tokens": 65, "max_tokens": None}, "world", "block_tokens: 65 are more than the model's positions, 64"),
])
def test_what_cannot_be_learned_from_is_an_error(root, tmp_path, changes, corpus, words):
    if corpus == "one":
        write_table(root / "one" / "corpus.parquet", {"text": ["abc abc abd abd"]})
        changes = {"vocabulary": 14}
    with pytest.raises(FinetraceError, match=words):
        attempt(root, tmp_path, changes, corpus)


@pytest.mark.parametrize("changes", [{"steps": 0}, {"steps": 2, "evaluate": "none", "checkpoints": "none"}],
                         ids=["random weights", "nothing on a schedule"])
def test_runs_with_nothing_to_show(root, tmp_path, changes):
    for name in ("out", "model"):
        (tmp_path / name).mkdir()
    facts = pretrain(dataclasses.replace(SETTINGS, **changes), root / "world", 7, scratch=tmp_path / "s",
                     out=tmp_path / "out", model_out=tmp_path / "model", name="x")
    assert facts["steps"] == changes["steps"]
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert bool(list((tmp_path / "out").iterdir())) == bool(changes["steps"])
    load_classifier(tmp_path / "model", ["a", "b"], 0)


def test_another_seed_is_another_model(root, calm, tmp_path):
    for name in ("out", "model"):
        (tmp_path / name).mkdir()
    pretrain(dataclasses.replace(SETTINGS, steps=0, seed=2), root / "world", 7, scratch=tmp_path / "s",
             out=tmp_path / "out", model_out=tmp_path / "model", name="x")
    pretrained = load_classifier(tmp_path / "model", ["a", "b"], 0).bert.embeddings.word_embeddings.weight
    first = list_weights(calm / "trajectory" / "checkpoints")[0]
    assert not torch.equal(pretrained, load_file(first / "model.safetensors")["bert.embeddings.word_embeddings.weight"])
