"""STREUSLE: the same annotation from .conllulex, .json and .tsv files."""

import json

import pytest

from finetrace.data.streusle import COLUMNS, read_streusle
from finetrace.errors import FinetraceError

# sentence -> words and expressions (positions, lexcat, role, function)
SENTENCES = {
    "r-1": ("I had surgery for my toe , as well as rest .".split(),
            [((3,), "P", "p.Purpose", "p.Purpose"), ((4,), "PRON.POSS", "p.Possessor", "p.Gestalt"),
             ((7, 8, 9), "P", "p.Ensemble", "p.Accompanier"), ((2,), "N", "n.ACT", None)]),
    "r-2": ("No time .".split(), []),
    "r-3": ("On my way to the shop 's door with it".split(),
            [((0, 2), "PP", "p.Manner", "p.Locus"), ((3,), "P", "p.Goal", "p.Goal"),
             ((6,), "POSS", "p.Whole", "p.Gestalt"), ((8,), "P", "??", None), ((1,), "PRON.POSS", "`$", "`$")]),
}
SINGLE = [("r-1", "for", "p.Purpose", "p.Purpose"), ("r-1", "my", "p.Possessor", "p.Gestalt"),
          ("r-3", "to", "p.Goal", "p.Goal"), ("r-3", "'s", "p.Whole", "p.Gestalt")]


def as_json(sentences=SENTENCES) -> str:
    content = []
    for name, (words, expressions) in sentences.items():
        made = [{"lexlemma": "x", "lexcat": c, "ss": r, "ss2": f, "toknums": [i + 1 for i in at]}
                for at, c, r, f in expressions]
        content.append({"sent_id": name, "toks": [{"#": i, "word": w} for i, w in enumerate(words, 1)], "etoks": [],
                        "wmwes": {}, "swes": {str(m["toknums"][0]): m for m in made if len(m["toknums"]) == 1},
                        "smwes": {str(i): m for i, m in enumerate(made) if len(m["toknums"]) > 1}})
    return json.dumps(content)


def as_conllulex(sentences=SENTENCES) -> str:
    lines = []
    for name, (words, expressions) in sentences.items():
        lines += [f"# sent_id = {name}", "# mwe = x"]
        groups = {i: f"{g}:{k}" for g, (at, *_) in enumerate(expressions, 1) if len(at) > 1
                  for k, i in enumerate(at, 1)}
        first = {at[0]: (c, "lemma", r or "_", f or "_") for at, c, r, f in expressions}
        for i, word in enumerate(words):
            if i == 2:  # a multi-word token, and an empty node
                lines += ["\t".join(["3-4", "xy", *"_" * 17]), "\t".join(["2.1", "z", *"_" * 8])]
            lex = first.get(i, ("_", "_", "_", "_"))
            lines.append("\t".join([str(i + 1), word, *"_" * 8, groups.get(i, "_"), *lex, *"_" * 3, "O"]))
        lines.append("")
    return "\n".join(lines)


def as_tsv(sentences=SENTENCES) -> str:
    lines = ["\t".join(COLUMNS)]
    for name, (words, expressions) in sentences.items():
        for at, lexcat, role, function in expressions:
            if role.startswith("p."):
                lines.append("\t".join([name, str(at[0]), str(at[-1]), " ".join(words[i] for i in at), lexcat, role,
                                        str(function), " ".join(words)]))
    return "\n".join(lines) + "\n"


TEXTS = {"json": as_json, "conllulex": as_conllulex, "tsv": as_tsv}


def read(form, text=None, label="role", **settings):
    return read_streusle(TEXTS[form]() if text is None else text, f"f.{form}", label, form, **settings)


def shown(examples):
    return [(e.source_id.split(":")[0], " ".join(e.words[slice(*e.spans[0])]), e.label) for e in examples]


def refused(form, text) -> str:
    with pytest.raises(FinetraceError) as caught:
        read(form, text, "function")
    return str(caught.value)


@pytest.mark.parametrize("form", TEXTS)
def test_single_words_with_a_preposition_supersense_are_examples(form):
    assert shown(read(form).examples) == [(s, w, role) for s, w, role, _ in SINGLE]
    assert shown(read(form, label="function").examples) == [(s, w, function) for s, w, _, function in SINGLE]
    assert [e.source_id for e in read(form).examples] == ["r-1:4", "r-1:5", "r-3:4", "r-3:7"]


@pytest.mark.parametrize("form", TEXTS)
def test_adjacent_words_are_examples_if_wanted_and_gaps_never(form):
    found = read(form, multiword=True)
    assert shown(found.examples)[:3] == [*((s, w, r) for s, w, r, _ in SINGLE[:2]), ("r-1", "as well as", "p.Ensemble")]
    assert len(found.examples) == 5 and found.left_out["with a gap"] == 1 and not found.left_out["several words"]
    assert read(form).left_out["several words"] == 1


@pytest.mark.parametrize("form", ["json", "conllulex"])
def test_usages_without_a_supersense_are_counted(form):
    assert read(form).left_out == {"no supersense": 2, "several words": 1, "with a gap": 1}


@pytest.mark.parametrize("form", TEXTS)
def test_words_and_sentence_numbers(form):
    found = read(form).examples
    assert [e.words for e in found[::2]] == [tuple(SENTENCES["r-1"][0]), tuple(SENTENCES["r-3"][0])]
    assert [e.sentence for e in found] == ([0, 0, 1, 1] if form == "tsv" else [0, 0, 2, 2]), "a table lacks the others"


@pytest.mark.parametrize("form", ["conllulex", "tsv"])
def test_windows_line_ends_change_nothing(form):
    assert shown(read(form, TEXTS[form]().replace("\n", "\r\n")).examples) == shown(read(form).examples)


@pytest.mark.parametrize("form", TEXTS)
def test_examples_come_in_the_order_of_the_words(form):
    expressions = [((0, 1), "P", "p.Source", "p.Locus"), ((2,), "P", "p.Goal", "p.Goal")]
    found = read(form, TEXTS[form]({"s": ("out of for it".split(), expressions)}), multiword=True).examples
    assert [e.spans[0] for e in found] == [(0, 2), (2, 3)]


def test_one_word_of_a_phrase_is_no_single_word_in_a_table():
    row = "\t".join(["r", "3", "3", "own", "PP", "p.Manner", "p.Manner", "here on my own"])
    found = read("tsv", "\t".join(COLUMNS) + "\n" + row)
    assert not found.examples and found.left_out == {"with a gap": 1}


@pytest.mark.parametrize(("form", "text", "words"), [
    ("json", as_json()[:-20], "f.json: not valid JSON"),
    ("json", "{}", "f.json: is not a list of sentences"),
    ("json", '[{"toks": []}]', "f.json sentence 1: key 'swes' is missing"),
    ("json", '[3]', "f.json sentence 1: key 'toks' is missing"),
    ("json", as_json().replace('"#": 2', '"#": 3'), "f.json sentence 1: key '#' of the words counts [1, 3, 3, 4]"),
    ("json", as_json().replace('"toknums": [4]', '"toknums": [14]'),
     "f.json sentence 1: names words [14] of a sentence of 12"),
    ("json", as_json().replace('"ss2": "p.Purpose"', '"ss2": null'),
     "f.json sentence 1: has the role p.Purpose but the"),
    ("json", as_json().replace('"surgery"', '" "'), "f.json: sentence r-1 has an empty word"),
    ("conllulex", as_conllulex()[:-20], "fields instead of 19"),
    ("conllulex", as_conllulex().replace("\tO\n", "\n"), "f.conllulex line 3: 18 fields instead of 19"),
    ("tsv", as_tsv().replace("lexcat", "cat"),
     "f.tsv line 1: the header is 'sent_id first_tok last_tok expression cat"),
    ("tsv", as_tsv()[:-40], "f.tsv line 7: 7 fields instead of 8"),
    ("tsv", as_tsv().replace("\t3\t3\tfor", "\t3\t33\tfor"),
     "f.tsv line 2: field last_tok is '33', not the number of one of"),
    ("tsv", as_tsv().replace("\t3\t3\tfor", "\tx\t3\tfor"), "f.tsv line 2: field first_tok is 'x'"),
    ("tsv", as_tsv().replace("\t3\t3\tfor", "\t2\t2\tfor"),
     "f.tsv line 2: field expression is 'for', but words 2 to 2 are"),
    ("tsv", as_tsv().replace("rest .", "rest  ."), "f.tsv: sentence r-1 has an empty word"),
])
def test_damaged_files_are_refused(form, text, words):
    assert words in refused(form, text)
