"""Settings of tasks from annotated files, and the built-in entries for them."""

import pytest

from finetrace.config.base import parse
from finetrace.config.data import ANNOTATED, SPANS, FilesTaskSettings, Kind, TaskSettings, format_kinds
from finetrace.data.registry import entries, resolve
from finetrace.errors import FinetraceError

BUILT_IN = {"ud-pos": ("conllu", "upos"), "ud-xpos": ("conllu", "xpos"), "ud-dep": ("conllu", "deprel"),
            "streusle-role": ("streusle", "role"), "streusle-function": ("streusle", "function"),
            "trec-files": ("trec", "coarse"), "trec-50-files": ("trec", "fine"),
            "ep-dep": ("conllu", "deprel"), "ep-upos": ("conllu", "upos"), "ep-xpos": ("conllu", "xpos"),
            "ep-rel": ("semeval", None), "ep-dpr": ("dpr", None), "ep-spr1": ("spr1", None), "ep-spr2": ("spr2", None),
            **{f"ep-{label}": ("ontonotes", label)
               for label in ("pos", "constituents", "nonterminals", "ner", "srl", "coref")}}


def settings(**values):
    return parse(FilesTaskSettings, {"path": "x", **values}, "params.yaml: task_files.x")


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_entries_only_need_a_path(name):
    task = resolve("mine", settings(like=name))
    assert (task.format, task.label) == BUILT_IN[name] and task.source == "files"
    assert task.metric == (None if task.format in ("spr1", "spr2") else "accuracy"), "several labels have none"
    assert resolve(name, TaskSettings(path="x")) == task
    with pytest.raises(FinetraceError, match=rf"tasks\.{name}: key 'path' is missing; add it$"):
        resolve(name, TaskSettings())


def test_entries_can_be_changed():
    changes = {"pair_order": "dependent-head", "subtypes": False, "max_rows": {"train": 9}, "choose": "first"}
    task = resolve("x", settings(like="ud-dep", **changes))
    assert (task.pair_order, task.subtypes, task.choose, task.max_rows) == ("dependent-head", False, "first",
                                                                            {"train": 9})


def test_edge_probing_takes_dependents_first_and_roots_and_a_study_can_change_that():
    task = resolve("ep-dep", TaskSettings(path="x"))
    assert (task.pair_order, task.roots, task.subtypes, task.conllu_parity) == ("dependent-head", True, True, None)
    task = resolve("x", settings(like="ep-dep", pair_order="head-dependent", roots=False, conllu_parity=True))
    assert (task.pair_order, task.roots, task.conllu_parity) == ("head-dependent", False, True)


def test_formats_settle_the_kind_where_they_can():
    assert format_kinds("conllu", None) == ("token", "span-pair") and format_kinds("conllu", "deprel") == ("span-pair",)
    assert format_kinds("ontonotes", "ner") == ("span",) and format_kinds("ontonotes", "coref") == ("span-pair",)
    assert format_kinds("edges", None) == ("token", "span", "span-pair")
    assert {kind for form in ANNOTATED for kind in format_kinds(form, None)} <= set(SPANS)


def test_every_kind_says_how_many_spans_it_marks():
    assert set(SPANS) == set(Kind.__args__)


@pytest.mark.parametrize(("values", "words"), [
    ({"format": "conllu", "label": "pos"},
     "label: 'pos' is not in files of format conllu; choose upos or xpos or deprel"),
    ({"format": "streusle", "label": "upos"}, "choose role or function"),
    ({"format": "trec", "label": "label"}, "choose coarse or fine"),
    ({"format": "spans", "label": "klass"}, "choose label"),
    ({"format": "conllu", "label": "upos", "text": ["a"]}, "text: files of format conllu have no columns; remove text"),
    ({"format": "spans", "id_column": "id"}, "id_column: files of format spans have no columns; remove id_column"),
    ({"format": "trec", "label": "fine", "quoting": "none"}, "quoting: files of format trec have no columns"),
    ({"format": "conllu", "label": "deprel", "kind": "token"},
     "kind: token does not fit format conllu with label deprel"),
    ({"format": "conllu", "label": "upos", "kind": "span-pair"}, "choose token, or remove kind"),
    ({"format": "spans", "kind": "pair"}, "choose token or span or span-pair"),
    ({"kind": "token", "text": ["a"], "label": "b"}, "kind: token does not fit 1 text column(s)"),
    ({"format": "spans", "max_words": 0}, "max_words: 0 is less than 1"),
    ({"format": "conllu", "label": "upos", "roots": True}, "roots: is for label: deprel, not upos; remove roots"),
    ({"format": "spans", "roots": True}, "roots: is for files of format conllu, not spans; remove roots"),
    ({"format": "edges", "conllu_parity": True}, "conllu_parity: is for files of format conllu, not edges"),
    ({"format": "ontonotes", "label": "upos"}, "choose pos or constituents or nonterminals or ner or srl or coref"),
    ({"format": "ontonotes", "label": "ner", "kind": "token"},
     "kind: token does not fit format ontonotes with label ner"),
    ({"format": "semeval", "label": "relation"}, "choose label"),
    ({"format": "dpr", "kind": "span"}, "choose span-pair, or remove kind"),
    ({"format": "edges", "text": ["text"]}, "text: files of format edges have no columns; remove text"),
    ({"format": "conll"}, "format: Input should be 'csv'"),
    ({"choose": "last"}, "choose: Input should be 'random' or 'first'"),
])
def test_settings_that_do_not_fit_say_what_does(values, words):
    with pytest.raises(FinetraceError) as caught:
        settings(**values)
    assert words in str(caught.value)


def test_annotated_files_are_no_hub_data_set():
    with pytest.raises(FinetraceError, match="format: conllu is for source: files, not hub"):
        parse(TaskSettings, {"source": "hub", "format": "conllu", "label": "upos"}, "tasks.x")


@pytest.mark.parametrize(("values", "words"), [
    ({"format": "conllu"}, "key 'label' is missing; add it"),
    ({"label": "l"}, r"key 'text' is missing; add it \(or a `format`, as conllu or edges\)"),
])
def test_missing_parts_are_named(values, words):
    with pytest.raises(FinetraceError, match=words):
        resolve("x", settings(**values))


def test_a_built_in_name_in_task_files_is_told_about_like():
    with pytest.raises(FinetraceError, match="key 'text' is missing; add it, or like: ud-pos for the built-in task"):
        resolve("ud-pos", settings())


def test_formats_with_one_label_need_a_path_only():
    assert all(resolve("x", settings(format=form)).kind is None
               for form in ("spans", "edges", "semeval", "dpr", "spr1", "spr2"))
    with pytest.raises(FinetraceError, match="key 'label' is missing; add it"):
        resolve("x", settings(format="ontonotes"))


def test_trec_of_the_hub_names_its_coarse_classes_and_leaves_the_fine_ones_to_the_data_set():
    assert resolve("trec", TaskSettings()).label_names == ("ABBR", "ENTY", "DESC", "HUM", "LOC", "NUM")
    fine = resolve("trec-50", TaskSettings())
    assert fine.label_names is None and fine.label == "fine_label" and fine.holdout == 0.1
    assert {"trec", "trec-50", *BUILT_IN} <= set(entries())
