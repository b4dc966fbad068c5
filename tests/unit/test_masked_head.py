"""The masked-word head apart from its encoder: the scores of the whole model in every family; folders without one."""

import functools

import pytest
import torch
from tests.families import FAMILIES, TOKENS, config_of
from tests.training_fixtures import model_folder, tokenizer

from finetrace.errors import FinetraceError
from finetrace.inference.extract import layer_states
from finetrace.models.families import FAMILIES as KNOWN
from finetrace.models.load import load_encoder
from finetrace.models.masked_head import load_masked_head, masked_head_of

CHANGES = {  # variants of a family -> (family, changes of its config)
    **{family: (family, {}) for family in FAMILIES},
    "bert, untied": ("bert", {"tie_word_embeddings": False}),
    "deberta-v2, as stored by its authors": ("deberta-v2", {"legacy": False}),
    "modernbert, biases": ("modernbert", {"classifier_bias": True, "norm_bias": True}),
    "bert, relu": ("bert", {"hidden_act": "relu"}),
    "xlm": ("xlm", {}),
}


def masked_config(name):
    family, changes = CHANGES[name]
    if family == "xlm":
        from transformers import XLMConfig

        return XLMConfig(emb_dim=16, n_layers=2, n_heads=2, n_words=TOKENS, pad_index=0, use_lang_emb=False)
    config = config_of(family)
    for key, value in changes.items():
        setattr(config, key, value)
    return config


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """name -> folder of a model with its head; every number in it is random, also biases and norms."""
    from transformers import AutoModelForMaskedLM

    root = tmp_path_factory.mktemp("masked")

    @functools.cache
    def make(name):
        torch.manual_seed(5)
        model = AutoModelForMaskedLM.from_config(masked_config(name)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
        path = root / name.replace(" ", "-").replace(",", "")
        model.save_pretrained(path)
        tokenizer().save_pretrained(path)
        return path

    return make


def batch():
    ids = torch.randint(5, TOKENS, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", CHANGES)
def test_head_on_the_last_state_is_the_whole_model(folders, name):
    from transformers import AutoModelForMaskedLM

    whole = AutoModelForMaskedLM.from_pretrained(folders(name), dtype=torch.float64).eval()
    encoder = load_encoder(folders(name)).double()
    head = load_masked_head(folders(name)).to(torch.float64)
    with torch.no_grad():
        expected = whole(**batch()).logits[batch()["attention_mask"].bool()]
        found = head(layer_states(encoder, batch())[-1])[batch()["attention_mask"].bool()]
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    assert found.std() > 0.1  # a constant would pass too


def test_every_known_family_is_covered():
    assert set(KNOWN) <= {family for family, _ in CHANGES.values()}


def test_the_decoder_is_the_word_embeddings(folders):
    head, encoder = load_masked_head(folders("albert")), load_encoder(folders("albert"))
    assert torch.equal(head.decoder, encoder.get_input_embeddings().weight)
    assert head.decoder.shape == (TOKENS, 8)
    assert head.inner(torch.zeros(2, 16)).shape == (2, 8)


def padded(model, rows=9):
    """The model with rows of the embedding that stand for no token, each more probable than all words."""
    model.resize_token_embeddings(TOKENS + rows, mean_resizing=False)
    with torch.no_grad():
        masked_head_of(model).bias[TOKENS:] = 30.0
    return model


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert, biases"])
def test_rows_beyond_the_tokens_stand_for_no_word(folders, name, tmp_path):
    from transformers import AutoModelForMaskedLM

    padded(AutoModelForMaskedLM.from_pretrained(folders(name))).save_pretrained(tmp_path)
    assert len(load_masked_head(tmp_path).decoder) == TOKENS + 9
    found, wanted = load_masked_head(tmp_path, tokenizer()), load_masked_head(folders(name), tokenizer())
    assert torch.equal(found.decoder, wanted.decoder) and torch.equal(found.bias, wanted.bias)
    states = torch.randn(4, 16)
    assert torch.equal(found(states), wanted(states))


def test_heads_side_by_side_read_their_own_part(folders):
    head = load_masked_head(folders("bert"))
    states = torch.randn(2, 4, 16)
    stacked = {k: torch.stack([v, 2 * v]) for k, v in head.transform.tensors().items()}
    both = head.transform.with_tensors(stacked)(states)
    second = head.transform.with_tensors({k: v[1] for k, v in stacked.items()})(states[1])
    torch.testing.assert_close(both[0], head.transform(states[0]))
    torch.testing.assert_close(both[1], second)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "modernbert"])
def test_a_folder_without_a_head_is_an_error_that_says_so(tmp_path, family):
    folder = model_folder(tmp_path / family, config_of(family))
    with pytest.raises(FinetraceError, match=r"has no masked-word head: its weights lack .*would be random"):
        load_masked_head(folder)


def test_a_discriminator_is_no_generator(tmp_path):
    from transformers import ElectraForPreTraining

    ElectraForPreTraining(config_of("electra")).save_pretrained(tmp_path)
    with pytest.raises(FinetraceError, match="has no masked-word head"):
        load_masked_head(tmp_path)


def test_adaptive_softmax_is_an_error(tmp_path):
    from transformers import XLMConfig, XLMWithLMHeadModel

    config = XLMConfig(emb_dim=16, n_layers=1, n_heads=2, n_words=60, asm=True, asm_cutoffs=[10, 20], asm_div_value=4.0)
    model = XLMWithLMHeadModel(config)
    with pytest.raises(ValueError, match="adaptive softmax"):
        masked_head_of(model)
