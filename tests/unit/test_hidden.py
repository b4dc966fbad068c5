"""Hidden states are those of plain transformers, for every family, whatever the padding and the batch."""

import numpy as np
import pytest
import torch
from tests.families import FAMILIES, config_of, family_folders
from tests.training_fixtures import model_folder, task_folder

from finetrace.errors import FinetraceError
from finetrace.inference.choose import choose_rows
from finetrace.inference.extract import extract, layer_states
from finetrace.models.families import FAMILIES as DECLARED
from finetrace.models.families import family_of, layer_count, sentence_position
from finetrace.models.load import forward_names, load_classifier, load_encoder, load_tokenizer
from finetrace.models.rows import Collator, batches_by_tokens, encode
from finetrace.models.vectors import sentence_vectors


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return task_folder(tmp_path_factory.mktemp("pairs") / "task", {"train": 12}, pairs=True) / "train.parquet"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return family_folders(tmp_path_factory.mktemp("families"))


def encoded(folder, model, path):
    tokenizer = load_tokenizer(folder)
    return encode(path, tokenizer, 30, forward_names(model) | {"attention_mask"}, special=True), tokenizer


def alone(model, rows, i):
    """Plain transformers on one example without any padding: (layer, token, dim) float64."""
    batch = {name: torch.tensor([lists[i]]) for name, lists in rows.features.items()}
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states
    return torch.stack(states)[:, 0].double().numpy()


def extracted(model, rows, tokenizer, out, **changes):
    lengths = rows.lengths
    options = {"vectors": ["cls", "mean"], "offsets": np.cumsum(lengths) - lengths, "dtype": "float32",
               "batch_tokens": 100}
    out.mkdir(exist_ok=True, parents=True)
    extract(model, rows, Collator(tokenizer), out, **options | changes)
    return {p.stem: np.load(p) for p in out.glob("*.npy")}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_states_of_plain_transformers(folders, pairs, tmp_path, family):
    model = load_encoder(folders(family))
    rows, tokenizer = encoded(folders(family), model, pairs)
    plain = [alone(model.double(), rows, i) for i in range(len(rows))]
    found = extracted(model.float(), rows, tokenizer, tmp_path)
    layers = model.config.num_hidden_layers + 1
    assert found["cls"].shape == found["mean"].shape == (layers, len(rows), 16)
    assert found["tokens"].shape == (layers, rows.lengths.sum(), 16)
    np.testing.assert_allclose(found["tokens"], np.concatenate(plain, axis=1), atol=1e-5)
    np.testing.assert_allclose(found["mean"], np.stack([s.mean(axis=1) for s in plain], axis=1), atol=1e-5)
    np.testing.assert_allclose(found["cls"], np.stack([s[:, 0] for s in plain], axis=1), atol=1e-5)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f in DECLARED])
def test_the_sentence_token_is_the_one_that_the_familys_classifier_reads(folders, pairs, family):
    model = load_classifier(folders(family), ["no", "yes"], seed=1).eval()
    rows, _ = encoded(folders(family), model, pairs)
    seen = []
    model.base_model.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    logits = model(**{name: torch.tensor([lists[0]]) for name, lists in rows.features.items()}).logits
    gradient = torch.autograd.grad(logits[0, 0], seen[-1])[0][0].abs().sum(dim=1)
    assert sentence_position(model.config) == "first"
    assert gradient[0] > 0 and not gradient[1:].any()


def test_layer_0_is_what_the_first_layer_receives_and_the_last_state_is_what_the_head_receives(folders, pairs):
    families = [family for family in DECLARED if family in FAMILIES]
    assert families
    for family in families:
        model = load_encoder(folders(family))
        rows, _ = encoded(folders(family), model, pairs)
        first = next(m for n, m in model.named_modules() if n.endswith((".0", "attentions.0"))
                     and "embedding" not in n.lower())
        received = []
        first.register_forward_pre_hook(lambda m, args, kwargs,
                                        received=received: received.append((*args, *kwargs.values())[0]),
                                        with_kwargs=True)
        batch = {name: torch.tensor([lists[1]]) for name, lists in rows.features.items()}
        with torch.no_grad():
            states = layer_states(model, batch)
            last = model(**batch).last_hidden_state
        torch.testing.assert_close(states[0], received[0])
        torch.testing.assert_close(states[-1], last)


def test_a_declared_final_norm_is_one(folders, pairs):
    model = load_encoder(folders("modernbert"))
    assert family_of(model.config).final_norm
    rows, _ = encoded(folders("modernbert"), model, pairs)
    raw = []
    model.layers[-1].register_forward_hook(lambda module, inputs, output: raw.append(output))
    with torch.no_grad():
        states = layer_states(model, {name: torch.tensor([lists[0]]) for name, lists in rows.features.items()})
        torch.testing.assert_close(states[-1], model.final_norm(raw[0]))
    assert [name for name, family in DECLARED.items() if family.final_norm] == ["modernbert"]


def test_albert_with_inner_layers_counts_each_of_them(tmp_path, pairs):
    folder = model_folder(tmp_path / "albert", config_of("albert", inner_group_num=2))
    model = load_encoder(folder)
    rows, tokenizer = encoded(folder, model, pairs)
    assert layer_count(model.config) == 5
    assert extracted(model, rows, tokenizer, tmp_path / "out")["cls"].shape[0] == 5


def test_a_model_with_another_number_of_states_is_refused(folders, pairs):
    model = load_encoder(folders("bert"))
    model.config.num_hidden_layers = 5
    with pytest.raises(FinetraceError, match=r"bert: gives 3 hidden states instead of 6; declare in .*families.py"):
        layer_states(model, {"input_ids": torch.tensor([[2, 5, 3]]),
                             "attention_mask": torch.ones(1, 3, dtype=torch.long)})


@pytest.mark.parametrize("kind", ["first", "last", "mean", "cls_index"])
def test_flaubert_reads_where_its_summary_type_says(tmp_path, pairs, kind):
    folder = model_folder(tmp_path / "flaubert", config_of("flaubert", summary_type=kind))
    model = load_encoder(folder)
    rows, tokenizer = encoded(folder, model, pairs)
    plain = [alone(model, rows, i) for i in range(len(rows))]
    wanted = {"first": lambda s: s[:, 0], "mean": lambda s: s.mean(axis=1)}.get(kind, lambda s: s[:, -1])
    found = extracted(model, rows, tokenizer, tmp_path / "out")["cls"]
    np.testing.assert_allclose(found, np.stack([wanted(s) for s in plain], axis=1), atol=1e-5)


def test_a_summary_type_that_names_no_token_is_refused():
    with pytest.raises(ValueError, match="summary_type 'attn' of flaubert names no token"):
        sentence_position(config_of("flaubert", summary_type="attn"))


def test_an_unlisted_family_is_read_like_bert():
    assert sentence_position(config_of("mpnet")) == "first" and not family_of(config_of("mpnet")).final_norm


@pytest.mark.parametrize("family", ["bert", "roberta", "flaubert", "modernbert", "deberta-v2"])
def test_padding_and_batch_composition_change_nothing(folders, pairs, tmp_path, family):
    model = load_encoder(folders(family))
    rows, tokenizer = encoded(folders(family), model, pairs)
    together = extracted(model, rows, tokenizer, tmp_path / "a", batch_tokens=10_000)
    single = extracted(model, rows, tokenizer, tmp_path / "b", batch_tokens=1)
    wide = Collator(tokenizer, multiple=37)
    out = tmp_path / "c"
    out.mkdir()
    extract(model, rows, wide, out, vectors=["cls"], offsets=np.full(len(rows), -1), dtype="float32", batch_tokens=500)
    for kind in ("cls", "mean", "tokens"):
        np.testing.assert_allclose(together[kind], single[kind], atol=1e-5)
    np.testing.assert_allclose(np.load(out / "cls.npy"), single["cls"], atol=1e-5)
    assert not (out / "tokens.npy").exists() and not (out / "mean.npy").exists()


def test_the_sentence_token_is_found_behind_padding_on_the_left():
    states = torch.arange(24, dtype=torch.float32).reshape(2, 4, 3)
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    assert sentence_vectors(states, mask, "first").tolist() == [states[0, 2].tolist(), states[1, 0].tolist()]
    assert sentence_vectors(states, mask, "last").tolist() == [states[0, 3].tolist(), states[1, 2].tolist()]
    assert sentence_vectors(states, mask, "mean").tolist() == [states[0, 2:].mean(0).tolist(),
                                                               states[1, :3].mean(0).tolist()]


def test_padding_on_the_left_is_handled_by_the_mask(folders, pairs, tmp_path):
    model = load_encoder(folders("deberta-v2"))  # positions are relative, so the side of the padding must not matter
    rows, tokenizer = encoded(folders("deberta-v2"), model, pairs)
    right = extracted(model, rows, tokenizer, tmp_path / "right")
    tokenizer.padding_side = "left"
    for kind, values in extracted(model, rows, tokenizer, tmp_path / "left").items():
        np.testing.assert_allclose(values, right[kind], atol=1e-5)


def test_special_tokens_are_those_that_the_tokenizer_adds(folders, pairs):
    model = load_encoder(folders("bert"))
    rows, tokenizer = encoded(folders("bert"), model, pairs)
    for ids, special in zip(rows.features["input_ids"], rows.special, strict=True):
        added = [i for i, t in enumerate(ids) if t in (tokenizer.cls_token_id, tokenizer.sep_token_id)]
        assert [i for i, s in enumerate(special) if s] == added and len(added) == 3


def test_float16_is_float32_rounded(folders, pairs, tmp_path):
    model = load_encoder(folders("bert"))
    rows, tokenizer = encoded(folders("bert"), model, pairs)
    full, half = (extracted(model, rows, tokenizer, tmp_path / t, dtype=t) for t in ("float32", "float16"))
    assert half["tokens"].dtype == np.float16
    np.testing.assert_array_equal(half["tokens"], full["tokens"].astype(np.float16))


def test_numbers_too_large_for_float16_and_nan_are_named(folders, pairs, tmp_path):
    model = load_encoder(folders("bert"))
    rows, tokenizer = encoded(folders("bert"), model, pairs)
    with torch.no_grad():
        model.encoder.layer[1].output.LayerNorm.weight.fill_(1e6)
    with pytest.raises(FinetraceError, match=r"hidden.dtype: layer 2 of example \d+ holds .* too large for float16; "
                                             r"set"):
        extracted(model, rows, tokenizer, tmp_path / "large", dtype="float16")
    with torch.no_grad():
        model.encoder.layer[0].output.LayerNorm.weight[0] = torch.nan
    with pytest.raises(FinetraceError, match=r"layer 1 of example \d+ is not finite; the training diverged"):
        extracted(model, rows, tokenizer, tmp_path / "nan")


def test_batches_by_tokens_hold_their_budget_and_every_row_once():
    lengths = np.random.default_rng(0).integers(1, 60, size=500)
    batches = list(batches_by_tokens(lengths, 128))
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(lengths[b].max() * len(b) <= 128 for b in batches)
    assert max(len(b) for b in batches) > 20 and len(list(batches_by_tokens(lengths, 1))) == 500


def test_stratified_rows_keep_the_shares_and_do_not_depend_on_other_draws():
    labels = np.repeat([0, 1, 2], [600, 300, 4])
    chosen = choose_rows(labels, 90, "stratified", 7)
    assert np.bincount(labels[chosen]).tolist() == [59, 30, 1] and (np.diff(chosen) > 0).all()
    assert set(chosen.tolist()) != set(choose_rows(labels, 90, "stratified", 8).tolist())
    np.testing.assert_array_equal(chosen, choose_rows(labels, 90, "stratified", 7))


@pytest.mark.parametrize("how", ["stratified", "random", "first"])
def test_chosen_rows_are_as_many_as_asked_for(how):
    labels = np.random.default_rng(1).integers(0, 9, 100)
    for count in (1, 2, 5, 9, 10, 50, 99):
        chosen = choose_rows(labels, count, how, 3)
        assert len(set(chosen.tolist())) == count and 0 <= chosen.min() and chosen.max() < 100
    for count in (0, 100, 1000):
        assert choose_rows(labels, count, how, 3).tolist() == list(range(100))
    assert choose_rows(labels, 5, "first", 3).tolist() == [0, 1, 2, 3, 4]


