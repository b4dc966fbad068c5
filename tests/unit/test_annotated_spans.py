"""The project's own JSON lines with marked words."""

import json

import pytest

from finetrace.data.spans import read_spans
from finetrace.errors import FinetraceError

A = {"text": "the team went", "spans": [[1, 2]], "label": "N"}


def lines(*rows) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)


def read(*rows):
    return read_spans(lines(*rows), "f.jsonl").examples


def refused(*rows) -> str:
    with pytest.raises(FinetraceError) as caught:
        read(*rows)
    return str(caught.value)


def test_a_text_or_its_words_give_the_same_example():
    first, second = read(A)[0], read({**A, "text": ["the", "team", "went"]})[0]
    assert (first.words, first.spans, first.label) == (("the", "team", "went"), ((1, 2),), "N") == (second.words,
                                                                                                    second.spans,
                                                                                                    second.label)


def test_pairs_ids_and_numbers_as_labels():
    found = read({"text": "a b c", "spans": [[2, 3], [0, 2]], "label": 7, "id": 12})[0]
    assert (found.spans, found.label, found.source_id) == (((2, 3), (0, 2)), "7", "12")


def test_the_same_text_in_a_row_is_one_sentence():
    b = {**A, "text": "a team"}
    assert [e.sentence for e in read(A, {**A, "spans": [[0, 1]]}, b, A)] == [0, 0, 1, 2]
    assert [e.sentence for e in read(A, {**A, "text": " the  team\twent "}, "", b)] == [0, 0,
                                                                                        1], "words count, not blanks"


def test_words_may_hold_blanks_and_any_character():
    words = ["New York", "nai\u0308ve", "\u200b", "👩\u200d🚀", "a\u2028b"]
    assert read({**A, "text": words})[0].words == tuple(words)
    assert read({**A, "text": "x\u00a0y \u3000z"})[0].words == ("x", "y", "z"), "any white space parts words of a text"


def test_windows_line_ends_and_blank_lines_change_nothing():
    text = lines(A, {**A, "label": "V"})
    found = read_spans("\n" + text.replace("\n", "\r\n") + "\r\n", "f").examples
    assert [(e.words, e.spans, e.label) for e in found] == [(e.words, e.spans, e.label)
                                                            for e in read_spans(text, "f").examples]


@pytest.mark.parametrize(("row", "words"), [
    ('{"text": "a"', "line 2: not valid JSON"),
    ("[1]", "line 2: is not an object"),
    ({"text": "a b", "spans": [[0, 1]]}, "line 2: key 'label' is missing; its keys are text, spans"),
    ({"text": "a b", "label": "x"}, "line 2: key 'spans' is missing"),
    ({"spans": [[0, 1]], "label": "x"}, "line 2: key 'text' is missing"),
    ({**A, "lable": 1}, "line 2: unknown key 'lable'; known keys: text, spans, label, id"),
    ({**A, "text": ""}, "line 2: key 'text' holds ''"),
    ({**A, "text": []}, "line 2: key 'text' holds []"),
    ({**A, "text": ["a", ""]}, "line 2: key 'text' holds ['a', '']"),
    ({**A, "text": ["a", 1]}, "line 2: key 'text' holds"),
    ({**A, "text": None}, "line 2: key 'text' holds None"),
    ({**A, "spans": []}, "line 2: key 'spans' holds []; give one span as [[0, 1]], or two"),
    ({**A, "spans": [1, 2]}, "line 2: spans[0] is 1; give [first word, word after the last] with 0 <= first < after "
                             "<= 3"),
    ({**A, "spans": [[0, 1], [0, 1], [0, 1]]}, "line 2: key 'spans' holds"),
    ({**A, "spans": [[1, 1]]}, "line 2: spans[0] is [1, 1]"),
    ({**A, "spans": [[2, 1]]}, "line 2: spans[0] is [2, 1]"),
    ({**A, "spans": [[-1, 1]]}, "line 2: spans[0] is [-1, 1]"),
    ({**A, "spans": [[2, 4]]}, "line 2: spans[0] is [2, 4]; give [first word, word after the last] with 0 <= first < "
                               "after <= 3"),
    ({**A, "spans": [[0, 1.0]]}, "line 2: spans[0] is [0, 1.0]"),
    ({**A, "spans": [[False, True]]}, "line 2: spans[0] is [False, True]"),
    ({**A, "spans": [[0, 1, 2]]}, "line 2: spans[0] is [0, 1, 2]"),
    ({**A, "spans": [[0, 1], [1, 2]]}, "line 2: key 'spans' has 2 spans, the lines before have 1"),
    ({**A, "label": None}, "line 2: key 'label' holds None"),
    ({**A, "label": " "}, "line 2: key 'label' holds ' '"),
    ({**A, "label": 0.5}, "line 2: key 'label' holds 0.5"),
    ({**A, "label": True}, "line 2: key 'label' holds True"),
])
def test_damaged_lines_are_named(row, words):
    assert f"f.jsonl {words}" in refused(A, row)
