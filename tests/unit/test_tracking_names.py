"""Names that tell runs apart in MLflow's list."""

from itertools import product

import pytest

from finetrace.study.study import Run
from finetrace.tracking.names import WIDTH, cell_names, place_names, shown_names

HUB_MODELS = ("sentence-transformers-all-mpnet-base-v2", "sentence-transformers-all-minilm-l6-v2",
              "google-bert-bert-base-uncased", "microsoft-deberta-v3-base")
HUB_TASKS = ("cardiffnlp-tweet-eval-emotion", "fancyzhx-amazon-polarity", "stanfordnlp-sst2")
METHODS = ("ft", "lp", "lp-ft", "lora", "lp-lora")


def test_names_tell_runs_apart_within_24_characters() -> None:
    runs = [Run(model, task, method, seed) for model in ("micro-a", "micro-b", "micro-random")
            for task in ("micro-sentiment", "micro-nli") for method in ("ft-tuned", "lp-lora") for seed in (1, 2)]
    names = shown_names(runs)
    assert names["micro-a_micro-sentiment_lp-lora_s2"] == "s2 a lp-lora sentiment"
    assert len({name[:24] for name in names.values()}) == len(runs)


def test_what_all_runs_share_comes_last_and_whole() -> None:
    runs = [Run("micro-a", "micro-nli", "ft", seed) for seed in (1, 2)]
    assert list(shown_names(runs).values()) == ["s1 micro-a micro-nli ft", "s2 micro-a micro-nli ft"]


def test_a_study_without_fine_tunings_has_no_names() -> None:
    assert shown_names([]) == {}


@pytest.mark.parametrize(("names", "shown"), [
    (("bert-base", "bert-large"), ("base", "large")),
    (("bert", "bert-large"), ("bert", "bert-large")),  # nothing would be left of the first
    (("bert-base-cased", "bert-base-uncased"), ("cased", "uncased")),
    (("bertram", "bertha"), ("bertram", "bertha")),
    (("glove", "été"), ("glove", "été")),
])
def test_common_words_are_left_out(names: tuple[str, ...], shown: tuple[str, ...]) -> None:
    found = shown_names([Run(name, "t", "ft", 1) for name in names])
    assert [text.split()[1] for text in found.values()] == list(shown)




@pytest.mark.parametrize("models", [HUB_MODELS[:1], HUB_MODELS[:2], HUB_MODELS])
def test_long_names_of_hub_models_and_tasks_are_told_apart(models: tuple[str, ...]) -> None:
    runs = [Run(*parts) for parts in product(models, HUB_TASKS, METHODS, range(1, 6))]
    assert len({name[:WIDTH] for name in shown_names(runs).values()}) == len(runs)
    assert len({f"mean {name}"[:WIDTH] for name in cell_names(runs).values()}) == len(runs) / 5


def test_names_that_are_too_long_keep_what_is_their_own() -> None:
    runs = [Run(*parts) for parts in product(HUB_MODELS[:2], HUB_TASKS, METHODS, (1,))]
    names = shown_names(runs)
    assert names[f"{HUB_MODELS[0]}_{HUB_TASKS[0]}_lp_s1"] == "s1 lp mpnet cardif"
    assert names[f"{HUB_MODELS[1]}_{HUB_TASKS[2]}_lp-lora_s1"] == "s1 lp-lo minilm stanfo"
    alike = [Run(f"model-{'x' * 30}{number}-base", task, "ft", 1) for number in range(12) for task in HUB_TASKS]
    assert len({name[:WIDTH] for name in shown_names(alike).values()}) == len(alike)


def test_masked_word_trainings_are_renamed_where_their_names_begin_alike() -> None:
    assert place_names(["micro-a", "micro-b"], ["micro-a-reviews", "micro-a-control"]) == {}
    assert place_names(HUB_MODELS[:2], []) == {f"{HUB_MODELS[0]}_pretrain": "pretrain mpnet-base-v2",
                                               f"{HUB_MODELS[1]}_pretrain": "pretrain minilm-l6-v2"}
