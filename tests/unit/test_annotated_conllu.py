"""CoNLL-U: which words there are, what their labels are, and which files are refused."""

import pytest

from finetrace.data.conllu import read_conllu
from finetrace.errors import FinetraceError


def line(number, form, upos="X", head="0", deprel="root", xpos="_", misc="_") -> str:
    return "\t".join([str(number), form, "_", upos, xpos, "_", str(head), deprel, "_", misc])


# "vámonos al mar": two multi-word tokens; an empty node between them and one before the first word
SPANISH = "\n".join([
    "# newdoc id = d1", "# sent_id = es-1", "# text = vámonos al mar", line("0.1", "ella", "PRON", "_", "_"),
    line("1-2", "vámonos", "_", "_", "_"), line(1, "vamos", "VERB", 0, "root"), line(2, "nos", "PRON", 1, "obj"),
    line("2.1", "corriendo", "VERB", "_", "_"), line("3-4", "al", "_", "_", "_"), line(3, "a", "ADP", 5, "case"),
    line(4, "el", "DET", 5, "det"), line(5, "mar", "NOUN", 1, "obl:arg"), "", ""])


def read(text, label="upos", **settings):
    return read_conllu(text, "f.conllu", label, **settings)


def shown(examples):
    return [(e.words[e.spans[0][0]], e.label, e.source_id) for e in examples]


def refused(text, label="upos") -> str:
    with pytest.raises(FinetraceError) as caught:
        read(text, label)
    return str(caught.value)


def test_multiword_tokens_and_empty_nodes_are_no_words_and_shift_nothing():
    found = read(SPANISH).examples
    assert {e.words for e in found} == {("vamos", "nos", "a", "el", "mar")}
    assert shown(found) == [("vamos", "VERB", "es-1:1"), ("nos", "PRON", "es-1:2"), ("a", "ADP", "es-1:3"),
                            ("el", "DET", "es-1:4"), ("mar", "NOUN", "es-1:5")]
    assert [e.spans for e in found] == [((i, i + 1),) for i in range(5)]


def test_relations_are_between_words_and_their_heads_and_the_root_has_none():
    found = read(SPANISH, "deprel")
    pairs = [(e.words[e.spans[0][0]], e.words[e.spans[1][0]], e.label, e.source_id) for e in found.examples]
    assert pairs == [("vamos", "nos", "obj", "es-1:2"), ("mar", "a", "case", "es-1:3"), ("mar", "el", "det", "es-1:4"),
                     ("vamos", "mar", "obl:arg", "es-1:5")]
    assert not found.left_out


def test_the_dependent_can_come_first():
    turned = read(SPANISH, "deprel", order="dependent-head").examples
    assert [e.spans for e in turned] == [e.spans[::-1] for e in read(SPANISH, "deprel").examples]
    assert turned[0].words[turned[0].spans[0][0]] == "nos"


def test_subtypes_can_be_dropped():
    assert [e.label for e in read(SPANISH, "deprel", subtypes=False).examples] == ["obj", "case", "det", "obl"]


def test_line_ends_blank_lines_and_a_missing_last_one_change_nothing():
    plain = read(SPANISH).examples
    two = SPANISH + SPANISH.replace("es-1", "es-2")
    for text in (SPANISH.rstrip("\n"), SPANISH.replace("\n", "\r\n"), "\n\n" + SPANISH + "\n \n\n",
                 "# comment\n\n" + SPANISH):
        assert shown(read(text).examples) == shown(plain)
    numbers = [e.sentence for e in read(two.rstrip("\n")).examples]
    assert numbers == [0] * 5 + [1] * 5
    assert [e.source_id for e in read(two).examples][5] == "es-2:1"


def test_sentences_without_a_name_have_no_source_id():
    found = read("\n".join([line(1, "a"), "", "# sent_id = s", line(1, "b"), "", line(1, "c")])).examples
    assert [e.source_id for e in found] == [None, "s:1", None]
    assert [e.sentence for e in found] == [0, 1, 2]


def test_sentences_are_numbered_in_the_file_also_where_some_have_no_example():
    text = "\n".join([line(1, "hello"), "", line(1, "a", head=2, deprel="det"), line(2, "b")])
    assert [e.sentence for e in read(text, "deprel").examples] == [1]


def test_missing_values_are_left_out_and_counted():
    text = "\n".join([line(1, "a", "DET"), line(2, "b", "_"), line(3, "c", "NOUN", xpos="NN")])
    found = read(text)
    assert [e.spans for e in found.examples] == [((0, 1),), ((2, 3),)] and found.left_out == {"upos is _": 1}
    found = read(text, "xpos")
    assert [e.label for e in found.examples] == ["NN"] and found.left_out == {"xpos is _": 2}
    found = read("\n".join([line(1, "a", head="_", deprel="_"), line(2, "b", head=1, deprel="det")]), "deprel")
    assert len(found.examples) == 1 and found.left_out == {"deprel is _": 1}


@pytest.mark.parametrize("word", ["10 000", "nai\u0308ve", "na\u00efve", "\u200b", "👩\u200d🚀", "a\u2028b", "x\u00a0y",
                                  "_", "#", "\ufb01"])
def test_words_stay_as_they_are(word):
    found = read("\n".join([line(1, word, "NOUN"), line(2, "end", "X")])).examples
    assert found[0].words == (word, "end") and len(found) == 2


def test_a_word_that_looks_like_a_comment_is_a_word():
    text = "\n".join(["# sent_id = s", line(1, "#", "SYM"), line(2, "1", "NUM")])
    assert shown(read(text).examples) == [("#", "SYM", "s:1"), ("1", "NUM", "s:2")]


@pytest.mark.parametrize(("text", "words"), [
    (line(1, "a") + "\n" + line(2, "b")[:-4], "f.conllu line 2: 8 fields instead of 10, separated by tabs"),
    (line(1, "a").replace("\t", " "), "line 1: 1 fields instead of 10"),
    (line(1, "a") + "\t", "line 1: 11 fields instead of 10"),
    (line(2, "a"), "line 1: field ID is '2' where 1 is next"),
    (line(1, "a") + "\n" + line(1, "b"), "line 2: field ID is '1' where 2 is next"),
    (line(1, "a") + "\n" + line(3, "b"), "line 2: field ID is '3' where 2 is next"),
    (line("x", "a"), "line 1: field ID is 'x'"),
    (line(1, ""), "line 1: field FORM is empty"),
    (line(1, " "), "line 1: field FORM is empty"),
    (line(1, "a", ""), "line 1: field UPOS is empty"),
])
def test_damaged_lines_are_named(text, words):
    assert words in refused(text)


@pytest.mark.parametrize(("rows", "words"), [
    ([line(1, "a", head=3, deprel="det"), line(2, "b")],
     "line 1: field HEAD is 3, but the sentence has 2 words; mend it (is"),
    ([line(1, "a", head="_", deprel="det")], "line 1: field HEAD is '_', not the number of a word"),
    ([line(1, "a", head="-1", deprel="det")], "line 1: field HEAD is '-1'"),
    ([line(1, "a", head="1", deprel="det")], "line 1: field HEAD is 1, the word itself"),
    ([line(1, "a", head="2", deprel=""), line(2, "b")], "line 1: field DEPREL is empty"),
])
def test_damaged_heads_are_named(rows, words):
    assert words in refused("\n".join(rows), "deprel")
    assert read("\n".join(rows)).examples, "parts of speech do not need heads"


def test_a_file_cut_inside_a_sentence_is_noticed_by_its_heads():
    cut = "\n".join(SPANISH.rstrip("\n").split("\n")[:-1])
    assert "field HEAD is 5, but the sentence has 4 words" in refused(cut, "deprel")


def test_an_empty_file_has_no_examples():
    assert read("").examples == [] and read("# sent_id = x\n\n").examples == []


DOGS = "\n".join([line(1, "Dogs", head=2, deprel="nsubj"), line(2, "bark"), line(3, "loudly", head=2, deprel="advmod"),
                  line(4, ".", head=2, deprel="punct"), ""])


def test_edge_probing_takes_every_word_with_its_head_and_roots_with_themselves():
    found = read(DOGS, "deprel", order="dependent-head", roots=True).examples
    assert [(e.spans, e.label) for e in found] == [(((0, 1), (1, 2)), "nsubj"), (((1, 2), (1, 2)), "root"),
                                                   (((2, 3), (1, 2)), "advmod"), (((3, 4), (1, 2)), "punct")]
    turned = read(DOGS, "deprel", roots=True).examples
    assert [e.spans for e in turned] == [e.spans[::-1] for e in found]
    assert [e for e in turned if e.label != "root"] == read(DOGS, "deprel").examples
    spanish = read(SPANISH, "deprel", order="dependent-head", roots=True).examples
    assert [e.spans[0] for e in spanish] == [((i, i + 1)) for i in range(5)], "every word once as the first span"
    assert [e.label for e in spanish if e.spans[0] == e.spans[1]] == ["root"]


def made_up(sentences: int, empty: tuple[int, ...], multiword: tuple[int, ...]) -> str:
    """A file of sentences of 3 words each, some with an empty node or a multi-word token."""
    lines = []
    for i in range(sentences):
        token, node = (["\t".join([number, "x", *"________"])] for number in ("1-2", "2.1"))
        lines += [f"# sent_id = s{i}", *(token if i in multiword else []), line(1, "a", head=2, deprel="det"),
                  line(2, "b"), *(node if i in empty else []), line(3, "c", head=2, deprel="obj:x"), ""]
    return "\n".join([*lines, ""])


@pytest.mark.parametrize("label", ["deprel", "upos"])
def test_what_the_original_converter_lost_can_be_left_out_and_is_counted(label):
    text = made_up(20, empty=(0, 7, 8), multiword=(1, 7, 19))
    whole = read(text, label, **({"roots": True} if label == "deprel" else {}))
    assert len(whole.examples) == 60 and not whole.left_out
    found = read(text, label, parity=True, **({"roots": True} if label == "deprel" else {}))
    assert len(found.examples) == 3 * (20 - 3 - 1)
    assert found.left_out == {"sentences with an empty node": 3, "last sentence of the file": 1}
    assert found.examples == [e for e in whole.examples if e.sentence not in (0, 7, 8, 19)], "numbers and the rest stay"
    last = read(made_up(3, empty=(2,), multiword=()), label, parity=True)
    assert last.left_out == {"sentences with an empty node": 1} and {e.sentence for e in last.examples} == {0, 1}
