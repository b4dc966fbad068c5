"""Ranks by counting against a sort in float64: restricted and full vocabulary, ties, candidates, blocks of any size."""

import numpy as np
import pytest
import torch
from tests.oracles import cloze as oracle

from finetrace.lenses.cloze.ranking import Candidates, Ranker
from finetrace.lenses.cloze.records import from_table, to_table
from finetrace.models.masked_head import MaskedHead, Transform

WORDS, DIM, LAYERS, FACTS = 40, 6, 3, 11


def random_head(seed=0, inner=5):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    transform = Transform(draw(inner, DIM), draw(inner), draw(inner), draw(inner), torch.nn.functional.gelu, 1e-12)
    return MaskedHead(transform, draw(WORDS, inner), draw(WORDS))


@pytest.fixture
def case():
    """States (layer, fact, dim), a head, a vocabulary and objects in it."""
    random = np.random.default_rng(1)
    vocabulary = np.sort(random.choice(WORDS, 17, replace=False))
    states = torch.from_numpy(random.normal(size=(LAYERS, FACTS, DIM)))
    return states, random_head(), vocabulary, random.choice(vocabulary, FACTS)


def as_lists(head):
    return {**{k: v.tolist() for k, v in head.transform.tensors().items()}, "eps": head.transform.eps,
            "decoder": head.decoder.tolist(), "bias": head.bias.tolist()}


@pytest.mark.parametrize("memory_bytes", [1, 3000, 2**20])
def test_counting_is_sorting(case, memory_bytes):
    states, head, vocabulary, gold = case
    types = [np.sort(np.unique([g, *vocabulary[::4]])) if i % 3 else None for i, g in enumerate(gold)]
    ranks = Ranker(head.decoder, head.bias, vocabulary, memory_bytes=memory_bytes)(head.inner(states), gold,
                                                                                  Candidates.of_facts(types))
    plain = as_lists(head)
    for layer in range(LAYERS):
        for fact in range(FACTS):
            scores = oracle.scores(states[layer, fact].tolist(), plain)
            assert ranks.rank[layer, fact] == oracle.sorted_rank(scores, gold[fact], list(vocabulary))
            assert ranks.rank_full[layer, fact] == oracle.sorted_rank(scores, gold[fact], range(WORDS))
            assert ranks.log_prob[layer, fact] == pytest.approx(oracle.log_prob(scores, gold[fact]), rel=1e-5)
            assert ranks.top[layer, fact].tolist() == oracle.best(scores, list(vocabulary), 5)
            of_type = 0 if types[fact] is None else oracle.sorted_rank(scores, gold[fact], list(types[fact]))
            assert ranks.rank_candidates[layer, fact] == of_type


def test_ranks_are_bounded(case):
    states, head, vocabulary, gold = case
    ranks = Ranker(head.decoder, head.bias, vocabulary)(head.inner(states), gold)
    assert (ranks.rank >= 1).all() and (ranks.rank <= len(vocabulary)).all()
    assert (ranks.rank <= ranks.rank_full).all() and (ranks.rank_full <= WORDS).all()
    assert (ranks.rank < ranks.rank_full).any()
    assert ((ranks.rank == 1) == (ranks.top[..., 0] == gold)).all()
    assert (ranks.rank_candidates == 0).all()


def test_the_object_stands_behind_half_of_its_equals():
    decoder, bias = torch.zeros(6, 2), torch.tensor([0.0, 1.0, 1.0, 1.0, 2.0, 0.0])
    candidates = Candidates.of_facts([np.array([1, 3]), np.array([4, 1]), None])
    ranks = Ranker(decoder, bias, np.array([1, 2, 3, 4]))(torch.zeros(1, 3, 2), np.array([3, 4, 2]), candidates)
    assert ranks.rank.tolist() == [[3, 1, 3]], "behind word 4 and half of the other two"
    assert ranks.rank_candidates.tolist() == [[2, 1, 0]]


def test_a_model_without_an_opinion_knows_nothing():
    """All scores equal: the object's rank is in the middle, not 1."""
    ranks = Ranker(torch.zeros(101, 2), torch.zeros(101), np.arange(101))(torch.zeros(1, 2, 2), np.array([0, 70]))
    assert ranks.rank.tolist() == ranks.rank_full.tolist() == [[51, 51]]


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        Ranker(torch.zeros(4, 2), torch.full((4,), torch.nan), np.arange(4))(torch.zeros(1, 1, 2), np.array([0]))


def test_worked_example():
    """Azerbaijan, Baku: paris is scored higher, london lower."""
    scores = torch.tensor([9.1, 9.4, 8.0, 20.0])  # baku, paris, london, and a word outside the vocabulary
    ranks = Ranker(torch.zeros(4, 1), scores, np.array([0, 1, 2]))(torch.zeros(1, 1, 1), np.array([0]))
    assert (ranks.rank.item(), ranks.rank_full.item()) == (2, 3)
    assert ranks.top.tolist() == [[[1, 0, 2]]]


def test_the_order_of_facts_and_layers_does_not_matter(case):
    states, head, vocabulary, gold = case
    ranker = Ranker(head.decoder, head.bias, vocabulary)
    whole, order = ranker(head.inner(states), gold), np.random.default_rng(0).permutation(FACTS)
    part = ranker(head.inner(states[[2]][:, order]), gold[order])
    np.testing.assert_array_equal(part.rank[0], whole.rank[2, order])
    np.testing.assert_array_equal(part.top[0], whole.top[2, order])


def test_fewer_words_than_are_kept():
    ranks = Ranker(torch.randn(9, 2), torch.zeros(9), np.array([2, 5]), top=5)(torch.randn(1, 4, 2), np.full(4, 5))
    assert ranks.top.shape == (1, 4, 2)
    assert set(ranks.top.ravel()) <= {2, 5}


def test_bad_vocabularies():
    with pytest.raises(ValueError, match="not in the restricted vocabulary"):
        Ranker(torch.randn(9, 2), torch.zeros(9), np.array([2, 5]))(torch.randn(1, 1, 2), np.array([3]))
    for ids in ([], [9], [-1]):
        with pytest.raises(ValueError, match="ids from 0 to 8"):
            Ranker(torch.randn(9, 2), torch.zeros(9), np.array(ids, dtype=np.int64))


def test_records_survive_the_table(case):
    states, head, vocabulary, gold = case
    ranks = Ranker(head.decoder, head.bias, vocabulary)(head.inner(states), gold)
    table = to_table({"own": ranks, "tuned": ranks})
    assert table.num_rows == 2 * LAYERS * FACTS
    assert {name: str(kind) for name, kind in zip(table.schema.names, table.schema.types,
                                                  strict=True)}["layer"] == "int8"
    found = from_table(table)
    assert list(found) == ["own", "tuned"]
    for name in ("rank", "rank_full", "rank_candidates", "log_prob", "top"):
        np.testing.assert_array_equal(getattr(found["tuned"], name), getattr(ranks, name))
    assert from_table(table.drop_columns("top"))["own"].top.shape == (LAYERS, FACTS, 0)
    with pytest.raises(ValueError, match="are not 3 layers x 11 facts"):
        from_table(table.slice(3))
