"""What makes a model folder unusable is found when it is fetched, and said in one sentence."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.families import USUAL, config_of
from tests.training_fixtures import SPECIAL, WORDS, bert_config, model_folder, settings, tokenizer

from finetrace.config.training import MethodSettings
from finetrace.errors import FinetraceError
from finetrace.models.check import check_model
from finetrace.models.fetch import fetch_folder
from finetrace.models.load import load_classifier, load_encoder, load_tokenizer
from finetrace.models.masked import load_masked
from finetrace.models.precision import bf16_of
from finetrace.training.methods import start_classifier

SRC = Path(__file__).parents[2] / "src/finetrace"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return model_folder(tmp_path_factory.mktemp("models") / "whole")


@pytest.fixture
def folder(whole, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(whole, tmp_path / "model")


def refused(folder, tmp_path):
    """The message with which the folder is refused; it is one line."""
    (tmp_path / "out").mkdir()
    with pytest.raises(FinetraceError) as error:
        fetch_folder("mine", folder, tmp_path / "out")
    message = str(error.value)
    assert message.startswith("model_folders.mine: ") and "\n" not in message
    return message


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_a_whole_folder_is_copied_as_it_is(folder, tmp_path):
    (tmp_path / "out").mkdir()
    assert fetch_folder("mine", folder, tmp_path / "out") == {"folder": "model"}
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {p.name: p.read_bytes()
                                                                  for p in (tmp_path / "out").iterdir()}


# --- tokenizers


@pytest.mark.parametrize("family", ["bert", "roberta", "camembert", "deberta-v2"])
def test_a_folder_without_tokenizer_files_is_refused(tmp_path, family):
    folder = model_folder(tmp_path / "model", config_of(family))
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
    message = refused(folder, tmp_path)
    assert "has no tokenizer files" in message or "tokenizer could not be loaded" in message
    with pytest.raises(FinetraceError):
        load_tokenizer(folder)


def test_a_tokenizer_with_settings_but_no_words_is_refused(folder, tmp_path):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    assert "has no tokenizer files (tokenizer.json, vocab.txt ...), so every word would be unknown" in refused(folder,
                                                                                                               tmp_path)


def test_a_damaged_tokenizer_is_named(folder, tmp_path):
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text()[:500])
    assert "its tokenizer could not be loaded" in refused(folder, tmp_path)


@pytest.mark.parametrize(("settings", "file", "package"), [
    ({"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab"}, "vocab.txt", "fugashi"),
    ({"tokenizer_class": "DebertaV2Tokenizer"}, "spm.model", "sentencepiece"),
])
def test_a_missing_package_of_a_tokenizer_is_named(folder, tmp_path, settings, file, package):
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / file).write_text("\n".join((*SPECIAL, *WORDS)))
    if package == "sentencepiece":
        change_config(folder, model_type="deberta-v2")
    message = refused(folder, tmp_path)
    assert f"needs the package {package}, which finetrace does not bring along; pip install {package}" in message


def test_a_tokenizer_larger_than_the_embedding_is_refused_when_fetched(tmp_path):
    config = bert_config()
    config.vocab_size = 12
    folder = model_folder(tmp_path / "model", config)
    last = len(SPECIAL) + len(WORDS) - 1
    assert f"a token {WORDS[-1]!r} with id {last}, but the model has only 12 embeddings" in refused(folder, tmp_path)


def test_embeddings_without_a_token_are_counted(tmp_path, caplog):
    config = bert_config()
    config.vocab_size += 7
    with caplog.at_level(logging.INFO, "finetrace"):
        check_model(model_folder(tmp_path / "model", config), "models.padded")
    assert "models.padded: 7 of its 48 embeddings belong to no token" in caplog.text


def test_a_sentence_encoder_made_for_shorter_inputs_is_told(folder, tmp_path, caplog):
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 32, "do_lower_case": false}')
    (tmp_path / "out").mkdir()
    fetch_folder("mine", folder, tmp_path / "out")
    assert "made for 32 tokens (sentence_bert_config.json), though it has 64 positions" in caplog.text
    assert not (tmp_path / "out" / "sentence_bert_config.json").exists()


# --- config


@pytest.mark.parametrize(("content", "words"), [
    (None, "has no config.json"),
    ("{", "is no JSON file in UTF-8"),
    ("[1]", "model_type None is no architecture of transformers"),
    ("{}", "model_type None is no architecture of transformers"),
    ('{"model_type": "nope"}', "model_type 'nope' is no architecture of transformers"),
    ('{"model_type": "nope", "auto_map": {"AutoModel": "x.Y", "AutoConfig": "x.Z"}}',
     "needs code of its own (auto_map)"),
])
def test_configs_that_name_no_model_are_refused(folder, tmp_path, content, words):
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    message = refused(folder, tmp_path)
    assert words in message and "trust_remote_code" not in message


def test_code_of_a_known_architecture_is_left_alone(folder, tmp_path, caplog):
    change_config(folder, auto_map={"AutoModel": "x.Y", "AutoConfig": "x.Z"})
    (folder / "x.py").write_text("raise SystemExit('code of the model ran')\n")
    (tmp_path / "out").mkdir()
    fetch_folder("mine", folder, tmp_path / "out")
    assert "code of its own (auto_map), which is never run; the model is read as bert" in caplog.text


def test_a_config_with_wrong_values_is_named(folder, tmp_path):
    change_config(folder, num_hidden_layers="two")
    assert "config.json: is no config of a bert: Validation error for field 'num_hidden_layers'" in refused(folder,
                                                                                                            tmp_path)


# --- weights


@pytest.mark.parametrize("damage", ["cut", "garbage", "pointer", "empty"])
def test_damaged_weights_are_found_when_fetched(folder, tmp_path, damage):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes({"cut": content[:-100], "garbage": b"\x07" * len(content), "empty": b"",
                      "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"}[damage])
    message = refused(folder, tmp_path)
    assert "model.safetensors: " in message
    assert ("run git lfs pull" if damage == "pointer" else "is no whole safetensors file of") in message


def test_a_missing_part_of_the_weights_is_named(folder, tmp_path):
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {}, "weight_map": {n: "model-00001-of-00002.safetensors" for n in names}}))
    assert "model-00001-of-00002.safetensors: is absent" in refused(folder, tmp_path)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "deberta-v2", "electra", "flaubert", "mpnet"])
@pytest.mark.parametrize("head", [False, True], ids=["encoder", "with its masked-word head"])
def test_a_config_that_fits_part_of_the_weights_is_refused(tmp_path, family, head):
    from transformers import AutoModel, AutoModelForMaskedLM

    folder = tmp_path / "model"
    (AutoModelForMaskedLM if head else AutoModel).from_config(config_of(family)).save_pretrained(folder)
    load_encoder(folder)
    load_classifier(folder, ["no", "yes"], seed=1)
    layers = "n_layers" if family in ("distilbert", "flaubert") else "num_hidden_layers"
    change_config(folder, **{layers: 1})
    for load in (load_encoder, lambda f: load_classifier(f, ["no", "yes"], seed=1), *([load_masked] if head else [])):
        with pytest.raises(FinetraceError, match=r"fits only part of its weights: \d+ tensors .* \(.*\.1\.") as error:
            load(folder)
        assert "mend config.json" in str(error.value)


def test_a_tensor_that_a_layer_does_not_know_is_refused(folder):
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.0.attention.self.distance_embedding.weight"] = torch.zeros(3, 8)
    weights["embeddings.position_ids"] = torch.arange(64)[None]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(FinetraceError, match="1 tensors of the encoder would not be used"):
        load_encoder(folder)


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path, whole):
    from finetrace.models.saved import load_trained, save_classifier

    (tmp_path / "step").mkdir()
    save_classifier(load_classifier(whole, ["no", "yes"], seed=1), tmp_path / "step")
    load_trained(tmp_path / "step")
    weights = load_file(tmp_path / "step" / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, tmp_path / "step" / "model.safetensors", {"format": "pt"})
    with pytest.raises(FinetraceError, match=r"its weights lack classifier.weight, which would be random numbers"):
        load_trained(tmp_path / "step")


def test_a_deberta_of_the_first_version_is_refused_in_bf16(tmp_path):
    from transformers import DebertaConfig

    config = DebertaConfig(**USUAL, type_vocab_size=0, relative_attention=True, pos_att_type=["p2c", "c2p"])
    folder = model_folder(tmp_path / "model", config)
    task = {"label_names": ["no", "yes"]}
    start_classifier(folder, task, settings(precision="fp32"), MethodSettings(), 1, 1)
    with pytest.raises(FinetraceError, match=r"precision: bf16: on a CPU .* set fp32"):
        start_classifier(folder, task, settings(precision="bf16"), MethodSettings(), 1, 1)
    assert not bf16_of(load_encoder(folder), "fp32") and not bf16_of(load_encoder(folder), "auto")
    with pytest.raises(FinetraceError, match=r"precision: bf16: on a CPU .* set fp32"):
        bf16_of(load_encoder(folder), "bf16")


def test_whoever_reads_a_model_asks_whether_it_can_be_in_bf16():
    """Lenses and extraction ask for the model they have; trainings have asked when they began."""
    asking = {path.relative_to(SRC).as_posix() for path in SRC.rglob("*.py") if "use_bf16(" in path.read_text("utf-8")}
    began = {f"training/{name}.py" for name in ("trainer", "finetune", "tuning")}
    assert asking == {"models/device.py", "models/precision.py", *began}


def test_the_fixtures_tokenizer_is_whole(folder):
    assert len(load_tokenizer(folder)) == len(tokenizer())
