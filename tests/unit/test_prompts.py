"""Facts as prompts: one mask, one piece, in families of tokenizers; what is left out and why; LAMA's reading; bad
rows."""

import copy

import numpy as np
import pyarrow as pa
import pytest

from finetrace.errors import FinetraceError
from finetrace.inference.prompts import COLUMNS, encode_prompts, left_out

INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
TEXTS = ["the capital of azerbaijan is baku .", "paris is in france .", "she was born in paris ( london ) .",
         "baku , paris"]


def facts_table(*facts):
    """Facts (object, sentence, ...) or dicts of columns."""
    rows = []
    for number, fact in enumerate(facts):
        given = fact if isinstance(fact, dict) else {"object": fact[0], "sentences": list(fact[1:])}
        rows.append({"fact_id": f"f{number}", "corpus": "TREx", "relation": "P36", "relation_type": "1-1",
                     "subject": "s", "held_out": False, "candidates": None} | given)
    schema = pa.schema([(c, pa.list_(pa.string()) if c in ("sentences", "candidates") else
                         pa.bool_() if c == "held_out" else pa.string()) for c in COLUMNS])
    return pa.Table.from_pylist(rows, schema=schema)


@pytest.fixture(scope="module")
def wordpiece():
    """An uncased BERT tokenizer whose vocabulary is known."""
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "capital", "of", "is", ".", ")", "(", "##.", "##)",
             "##ku", "ba", "baku", "paris", "azerbaijan", "sao", "born", "in", ",", "was", "pa"]
    return BertTokenizer(vocab={word: number for number, word in enumerate(words)}, do_lower_case=True)


@pytest.fixture(scope="module")
def bytelevel():
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    mask = AddedToken("<mask>", lstrip=True)  # it takes the blank before it, as in RoBERTa
    special = ["<s>", "<pad>", "</s>", "<unk>", mask]
    inner.train_from_iterator([t for t in TEXTS for _ in range(9)] + ["paris", "(paris"] * 9, trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", cls_token="<s>",
                                   sep_token="</s>",
                                   unk_token="<unk>", pad_token="<pad>", mask_token="<mask>", model_max_length=64)


def every(tokenizer):
    return np.arange(len(tokenizer))


def encode(table, tokenizer, vocabulary=None, **changes):
    usual = {"max_length": 64, "inputs": INPUTS, "where": "facts.parquet"}
    return encode_prompts(table, tokenizer, every(tokenizer) if vocabulary is None else vocabulary, **usual | changes)


def tokens(prompts, tokenizer, row=0):
    return tokenizer.convert_ids_to_tokens(prompts.rows.features["input_ids"][row])


def test_worked_example(wordpiece):
    prompts = encode(facts_table(("Baku", "The capital of Azerbaijan is [MASK] .")), wordpiece)
    assert tokens(prompts, wordpiece) == ["[CLS]", "the", "capital", "of", "azerbaijan", "is", "[MASK]", ".", "[SEP]"]
    assert prompts.mask_at.tolist() == [6] and prompts.rows.lengths.tolist() == [9]
    assert wordpiece.convert_ids_to_tokens(prompts.gold.tolist()) == ["baku"]
    assert prompts.counts == {("TREx", "P36"): {"facts": 1, "kept": 1}}


def test_two_sentences_are_a_pair(wordpiece):
    prompts = encode(facts_table(("Baku", "Paris is in .", "the capital is [MASK].")), wordpiece)
    assert tokens(prompts, wordpiece)[-6:] == ["the", "capital", "is", "[MASK]", ".", "[SEP]"]
    assert prompts.rows.features["token_type_ids"][0] == [0] * 6 + [1] * 6
    assert tokens(prompts, wordpiece)[prompts.mask_at[0]] == "[MASK]"


def test_what_is_left_out_is_counted_by_reason(wordpiece):
    table = facts_table(("Baku", "is [MASK] ."), ("Bakuku", "is [MASK] ."), ("xyz", "is [MASK] ."),
                        ("the", "is [MASK] ."),
                        ("Paris", "is [MASK]born ."), ("Baku", "is [MASK] " + ". " * 30), ("New York", "is [MASK] ."),
                        ("pa", "is [MASK] ."), ("", "is [MASK] ."))
    vocabulary = np.setdiff1d(every(wordpiece), wordpiece.convert_tokens_to_ids(["the"]))
    prompts = encode(table, wordpiece, vocabulary, max_length=20)
    assert prompts.kept.tolist() == [0, 7]
    counts = prompts.counts["TREx", "P36"]
    assert counts == {"facts": 9, "kept": 2, "not one piece": 3, "unknown": 1, "not in the vocabulary": 1,
                      "inside a word": 1, "too long": 1}
    assert sum(counts.values()) - counts["facts"] == counts["facts"]
    assert (
        left_out(prompts.counts) == "1 inside a word, 3 not one piece, 1 unknown, 1 not in the vocabulary, 1 too long"
    )


def test_no_fact_left_is_an_error(wordpiece):
    with pytest.raises(FinetraceError, match=r"facts\.parquet: none of its 1 facts can be asked of this model: 1 "
                                             r"unknown"):
        encode(facts_table(("xyz", "is [MASK] .")), wordpiece)


def test_lama_reads_what_is_attached_to_the_mask_as_one_word(wordpiece):
    """Its connector keeps ")." together; prefixes come after the mask; everything else is as usual."""
    table = facts_table(("Baku", "Paris was born ([MASK])."), ("Baku", "The capital of Azerbaijan is [MASK] ."))
    usual, compat = encode(table, wordpiece), encode(table, wordpiece, lama_compat=True)
    assert tokens(usual, wordpiece)[1:-1] == ["paris", "was", "born", "(", "[MASK]", ")", "."]
    assert tokens(compat, wordpiece)[1:-1] == ["paris", "was", "born", "[MASK]", "(", "##)", "##."]
    assert tokens(usual, wordpiece, 1) == tokens(compat, wordpiece, 1)
    assert compat.rows.features["token_type_ids"][0] == [0] * 9


def test_lama_leaves_out_respelled_objects(wordpiece):
    table = facts_table(("São", "is [MASK] ."), ("Baku", "is [MASK] ."))
    assert encode(table, wordpiece).kept.tolist() == [0, 1]
    compat = encode(table, wordpiece, lama_compat=True)
    assert compat.kept.tolist() == [1] and compat.counts["TREx", "P36"]["respelled"] == 1


def test_lama_compat_is_for_bert(bytelevel):
    with pytest.raises(FinetraceError, match="lama_compat reads prompts as LAMA did for BERT"):
        encode(facts_table(("paris", "is [MASK] .")), bytelevel, lama_compat=True)


def test_byte_level_pieces_depend_on_the_blank_before(bytelevel):
    table = facts_table(("paris", "she was born in [MASK] ."), ("paris", "[MASK] is in france ."),
                        ("paris", "she was ([MASK] )"))
    prompts = encode(table, bytelevel)
    assert bytelevel.convert_ids_to_tokens(prompts.gold.tolist()) == ["Ġparis", "paris", "paris"]
    for row, sentence in enumerate(("she was born in paris .", "paris is in france .")):
        there = bytelevel(sentence)["input_ids"]  # the piece is what the tokenizer puts where the mask is
        masked = prompts.rows.features["input_ids"][row]
        assert there == [*masked[:prompts.mask_at[row]], prompts.gold[row], *masked[prompts.mask_at[row] + 1:]]


@pytest.mark.parametrize("kind", ["camembert", "flaubert"])
def test_french_tokenizers(tmp_path, kind):
    from tests.french_models import flaubert_folder
    from transformers import CamembertTokenizer

    from finetrace.models.load import load_tokenizer

    text = "Ce livre est magnifique ."
    if kind == "flaubert":
        tokenizer = load_tokenizer(flaubert_folder(tmp_path, [text] * 40, 200))
    else:
        special = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"]
        pieces = [(f"▁{word}", -2.0) for word in text.split()] + [(c, -9.0) for c in "▁"
                                                                  + "".join(sorted(set(text) - {" "}))]
        tokenizer = CamembertTokenizer(vocab=[(s, 0.0) for s in special] + pieces, model_max_length=64)
    prompts = encode(facts_table(("livre", "Ce [MASK] est magnifique ."), ("livrest", "Ce [MASK] est .")), tokenizer)
    assert prompts.kept.tolist() == [0]
    there, at = tokenizer(text)["input_ids"], prompts.mask_at[0]
    masked = prompts.rows.features["input_ids"][0]
    assert there == [*masked[:at], prompts.gold[0], *masked[at + 1:]]


def test_candidates(wordpiece):
    table = facts_table({"object": "Baku", "sentences": ["is [MASK] ."],
                         "candidates": ["paris", "baku", "xyz", "bakuba"]})
    (ids,) = encode(table, wordpiece).candidates
    assert wordpiece.convert_ids_to_tokens(ids.tolist()) == ["baku", "paris"]
    wrong = facts_table({"object": "Baku", "sentences": ["is [MASK] ."], "candidates": ["paris"]})
    with pytest.raises(FinetraceError, match=r"facts\.parquet: row 0 \(f0\): its object 'Baku' is not among its "
                                             r"candidates"):
        encode(wrong, wordpiece)


@pytest.mark.parametrize("sentences", [["is baku ."], [], ["a [MASK]", "b", "c"]])
def test_rows_that_are_no_questions(wordpiece, sentences):
    good = ("Baku", "is [MASK] .")
    with pytest.raises(FinetraceError, match=r"row 1 \(f1\): needs one or two sentences with a \[MASK\]"):
        encode(facts_table(good, {"object": "Baku", "sentences": sentences}), wordpiece)


def test_of_several_masks_the_first_is_asked(wordpiece):
    prompts = encode(facts_table(("Baku", "[MASK] is the capital of [MASK] .")), wordpiece)
    assert prompts.mask_at.tolist() == [1]


def test_bad_inputs(wordpiece, bytelevel):
    with pytest.raises(FinetraceError, match="has no column 'candidates'"):
        encode(facts_table(("Baku", "is [MASK] .")).drop_columns("candidates"), wordpiece)
    with pytest.raises(FinetraceError, match="has no facts"):
        encode(facts_table(("Baku", "is [MASK] .")).slice(1), wordpiece)
    with pytest.raises(FinetraceError, match=r"row 0 .* another number of mask tokens"):
        encode(facts_table(("paris", "is [MASK] <mask> .")), bytelevel)
    none = copy.deepcopy(wordpiece)
    none.mask_token = None
    with pytest.raises(FinetraceError, match="no mask token"):
        encode(facts_table(("Baku", "is [MASK] .")), none)
