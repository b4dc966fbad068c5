"""What makes MLflow's list readable: names of runs, headline metrics on the run of a training, runs of cells."""

from pathlib import Path

import pytest
from tests.outputs import make_project

from finetrace.store.files import write_json
from finetrace.store.manifest import complete, read_manifest
from finetrace.study.study import Run
from finetrace.tracking.collect import collect
from finetrace.tracking.overview import links, shown_names


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


def test_a_training_carries_the_headline_metrics_of_its_lenses(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, lenses=("infodynamics", "geometry"))
    folder = layout.place("micro-a/micro-sentiment/ft/s1") / "geometry"
    write_json(folder / "metrics.json", {"effective_rank/layer-03/last": 5, "effective_rank/layer-12/last": 7,
                                         "cosine_mean/layer-12/last": None, "slope": 1})
    complete(folder, read_manifest(folder, verify=False))
    records = {record.name: record for record in collect(layout, study).records}
    assert records["micro-a_micro-sentiment_ft_s1"].headlines == {"geometry/rank after": 7.0,
                                                                  "infodynamics/slope": 0.5}
    assert not records["geometry@micro-a_micro-sentiment_ft_s1"].headlines


def test_a_cell_has_mean_spread_and_number_of_what_every_seed_has(tmp_path: Path) -> None:
    layout, study = make_project(tmp_path, tasks=("micro-sentiment", "micro-nli"))
    for seed, accuracy in ((1, 0.75), (2, 0.5)):
        folder = layout.run("micro-a", "micro-nli", "ft", seed) / "trajectory"
        write_json(folder / "metrics.json", {"validation/accuracy": accuracy, f"only/{seed}": 1.0})
        complete(folder, read_manifest(folder, verify=False))
    (layout.run("micro-a", "micro-sentiment", "ft", 2) / "trajectory" / "manifest.json").unlink()
    found = collect(layout, study)
    (cell,) = [record for record in found.records if record.kind == "cell"]
    members = [record for record in found.records if record.kind == "trajectory" and "nli" in record.name]
    assert cell.members == tuple(record.identity for record in members) and cell.name == "micro-a_micro-nli_ft_cell"
    assert cell.shown == "mean nli micro-a ft"
    content = cell.load()
    assert content.finals["final/validation/accuracy"] == 0.625 and content.finals["n"] == 2
    assert content.finals["final/validation/accuracy/sd"] == pytest.approx(0.1767766952966369)
    assert content.finals["infodynamics/slope"] == 0.5 and content.finals["infodynamics/slope/sd"] == 0
    assert not [name for name in content.finals if name.startswith(("only", "cost"))]
    assert content.params == {"model": "micro-a", "task": "micro-nli", "method": "ft", "seeds": "1, 2"}


def test_a_cell_names_its_runs() -> None:
    (text,) = links({"one": "id-1", "two": "id-2"}, ("one", "two"), "7").values()
    assert "[run 1](#/experiments/7/runs/id-1)" in text and "runs/id-2" in text
