"""States for edge probes: which tokens are kept, that they are the model's own, that the model stays as it is, lost
words."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from tests.edge_stage import make_task
from tests.training_fixtures import bert_config
from tests.word_tasks import naive_pieces, piece_tokenizer

from finetrace.errors import FinetraceError
from finetrace.lenses.edges.states import edge_layout, encode_texts, group_tasks, read_split, tokenise, with_states
from finetrace.models.rows import Collator
from finetrace.store.tables import read_table, write_table

INPUTS = {"input_ids", "token_type_ids", "attention_mask"}


@pytest.fixture(scope="module")
def model():
    from transformers import BertModel

    torch.manual_seed(1)
    return BertModel(bert_config()).eval()


def read(folder, facts=("good", "bad", "plain"), **caps):
    return {split: read_split(folder / f"{split}.parquet", list(facts), caps.get(split, 0), seed=4)
            for split in ("train", "validation", "test")}


def naive(model, tokenizer, words, span):
    """(layer, piece, dim) of a span, the sentence alone in its batch."""
    ids, places = naive_pieces(tokenizer, list(words))
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    pieces = np.concatenate(places[span[0]:span[1]])
    return np.stack([s[0].numpy()[pieces] for s in states]), np.stack([s[0].numpy() for s in states])


def test_states_are_those_of_each_sentence_alone_and_the_model_stays_as_it_is(tmp_path, model):
    tokenizer = piece_tokenizer()
    tasks = {"pos": read(make_task(tmp_path, "pos")),
             "pairs": read(make_task(tmp_path, "pairs", spans=2), ("other", "same"))}
    assert group_tasks(tasks) == [["pos", "pairs"]]  # the same sentences
    before = {name: value.clone() for name, value in model.state_dict().items()}
    texts, pieces = tokenise(tasks, tokenizer, 64, INPUTS)
    moments = encode_texts(model, texts, Collator(tokenizer, side="right"), tmp_path / "s.npy", dtype="float32",
                           batch_tokens=100)
    states = np.load(tmp_path / "s.npy", mmap_mode="r")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and not model.training
    assert states.shape[:1] == (3,) and states.shape[1] == texts.tokens
    for name, splits in tasks.items():
        for split, table in splits.items():
            own = pieces[name][split]
            data = with_states(edge_layout(own, texts), own, states, moments)
            assert np.array_equal(data.gold, table.gold) and own.dropped == 0
            assert data.spans.shape == (len(table.gold), 2 if name == "pairs" else 1, 2)
            for target in range(0, len(table.gold), 7):
                sentence = int(np.searchsorted(table.starts, target, side="right") - 1)
                for side in range(data.spans.shape[1]):
                    wanted, whole = naive(model, tokenizer, table.words[sentence], table.spans[target, side])
                    start, end = data.spans[target, side]
                    np.testing.assert_allclose(data.states[:, data.tokens[start:end]], wanted, atol=2e-6)
                np.testing.assert_allclose(data.moments[:, sentence, 0], whole.sum((1, 2)), atol=1e-3)
                np.testing.assert_allclose(data.moments[:, sentence, 1], np.square(whole).sum((1, 2)), rtol=1e-5)
                assert data.lengths[sentence] == whole.shape[1]


def test_neither_the_size_of_batches_nor_float16_changes_more_than_rounding(tmp_path, model):
    texts, _ = tokenise({"pos": read(make_task(tmp_path, "pos"))}, piece_tokenizer(), 64, INPUTS)
    found = []
    for number, (tokens, dtype) in enumerate(((10_000, "float32"), (30, "float32"), (200, "float16"))):
        path = tmp_path / f"{number}.npy"
        done = []
        encode_texts(model, texts, Collator(piece_tokenizer(), side="right"), path, dtype=dtype, batch_tokens=tokens,
                     on_batch=done.append)
        assert done[-1] == len(texts.rows) and (len(done) > 3) == (tokens < 1000)
        found.append(np.load(path).astype(np.float64))
    np.testing.assert_allclose(found[1], found[0], atol=2e-6)
    np.testing.assert_allclose(found[2], found[0], rtol=2e-3, atol=2e-3)


def test_only_covered_pieces_are_kept(tmp_path):
    folder = make_task(tmp_path, "pos")
    table = read_table(folder / "train.parquet")
    first = np.flatnonzero(np.diff(table["sentence"].to_numpy(), prepend=-1))
    write_table(folder / "train.parquet", table.take(first))  # one word per sentence
    split = read_split(folder / "train.parquet", ["good", "bad", "plain"])
    texts, pieces = tokenise({"pos": {"train": split}}, piece_tokenizer(), 64, INPUTS)
    own = pieces["pos"]["train"]
    assert texts.tokens == int((own.spans[:, 0, 1]
                                - own.spans[:, 0, 0]).sum()) < int(texts.rows.lengths.sum()) - 2 * len(first)
    assert own.names[0] == (table["words"][0].as_py()[0],)


def test_cut_sentences_lose_targets_that_are_counted(tmp_path):
    folder = make_task(tmp_path, "pairs", spans=2)
    tables = {"train": read_split(folder / "train.parquet", ["other", "same"])}
    whole = tokenise({"p": tables}, piece_tokenizer(), 64, INPUTS)[1]["p"]["train"]
    texts, pieces = tokenise({"p": tables}, piece_tokenizer(), 12, INPUTS)
    cut = pieces["p"]["train"]
    assert whole.dropped == 0 and cut.dropped == len(whole.gold) - len(cut.gold) > 0
    assert texts.rows.lengths.max() == 12 and cut.spans.max() <= 11 and (np.diff(cut.starts) > 0).all()
    kept = np.isin(whole.example_ids, cut.example_ids)
    assert np.array_equal(whole.gold[kept], cut.gold) and np.array_equal(whole.spans[kept], cut.spans)
    edge_layout(cut, texts)
    with pytest.raises(FinetraceError, match=r"train\.parquet: edges\.max_length cuts off all \d+ targets"):
        tokenise({"p": tables}, piece_tokenizer(), 4, INPUTS)


def test_a_cap_draws_whole_sentences_the_same_for_one_seed(tmp_path):
    folder = make_task(tmp_path, "pos")
    whole, some, again, other = (read_split(folder / "train.parquet", ["g", "b", "p"], most, seed)
                                 for most, seed in ((0, 1), (60, 1), (60, 1), (60, 2)))
    assert 40 < len(some.gold) <= 60 and np.array_equal(some.example_ids, again.example_ids)
    assert not np.array_equal(some.example_ids, other.example_ids)
    for number in np.unique(some.sentences):
        assert (some.sentences == number).sum() == (whole.sentences == number).sum()
    assert (np.diff(some.sentences) >= 0).all()
    assert len(read_split(folder / "train.parquet", ["g", "b", "p"], 1, 1).words) == 1  # one sentence at least


def test_tasks_of_other_sentences_are_apart(tmp_path):
    tasks = {"a": read(make_task(tmp_path, "a")), "b": {"train": read_split(
        make_task(tmp_path, "b", rows={"validation": 9, "train": 9}) / "validation.parquet", ["g", "b", "p"])}}
    tasks["b"]["train"].words[:] = [("good1", *words) for words in tasks["b"]["train"].words]
    assert group_tasks(tasks) == [["a"], ["b"]]


def test_sets_of_labels(tmp_path):
    found = read_split(make_task(tmp_path, "spr", sets=True) / "train.parquet", ["a", "b", "c"])
    lists = read_table(tmp_path / "data/spr/train.parquet")["labels"].to_pylist()
    assert [np.flatnonzero(row).tolist() for row in found.gold] == lists and [] in lists and [0, 2] in lists


def test_damaged_tables_are_named(tmp_path):
    path = make_task(tmp_path, "pos") / "train.parquet"
    table = read_table(path)

    def changed(column, values, kind):
        return table.set_column(table.column_names.index(column), column, pa.array(values, kind))

    spans = [[3, 3], *table["spans"].to_pylist()[1:]]
    for bad, message in ((table.drop_columns(["words"]), "has no column 'words'"), (table.slice(0, 0), "has no rows"),
                         (changed("spans", spans, pa.list_(pa.int32(), 2)),
                          r"a span of sentence 2 is empty or outside its \d+"),
                         (changed("label", [7] * table.num_rows, pa.int32()), "holds a label outside 0 to 2")):
        write_table(tmp_path / "bad.parquet", bad)
        with pytest.raises(FinetraceError, match=message):
            read_split(tmp_path / "bad.parquet", ["g", "b", "p"])


def test_states_that_are_not_finite_or_too_large_are_refused(tmp_path, model):
    import copy

    texts, _ = tokenise({"pos": read(make_task(tmp_path, "pos"))}, piece_tokenizer(), 64, INPUTS)
    for factor, message in ((np.nan, "not finite; the training diverged"),
                            (1e6, r"edges\.dtype: layer 0 .* set float32")):
        broken = copy.deepcopy(model)
        with torch.no_grad():
            broken.embeddings.LayerNorm.weight.fill_(factor)
        with pytest.raises(FinetraceError, match=message):
            encode_texts(broken, texts, Collator(piece_tokenizer(), side="right"), tmp_path / "x.npy", dtype="float16",
                         batch_tokens=500)
