"""The stage pairs on tiny models: files, scores as one masked sentence at a time, killed and continued, heads
re-attached, models that cannot be scored."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.hidden_outputs import check_redrawn, finished, load_script
from tests.masked_fixtures import finetuned, masked_model, pretrained
from tests.oracles.pairs import pseudo_log_likelihood
from tests.stages import ask
from tests.training_fixtures import WORDS, tokenizer

from finetrace.config.base import as_dict
from finetrace.data.minimal_pairs import Pair, write_pairs
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.lenses.pairs.settings import PairsSettings
from finetrace.models.saved import load_trained_encoder
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import read_table
from finetrace.training.checkpoints import save_weights

PRETRAIN = "toy/pretrain"


def some_pairs() -> list[Pair]:
    random, found = np.random.default_rng(0), []
    for number in range(24):
        words = random.choice(WORDS, int(random.integers(3, 7)), replace=False).tolist()
        swapped = [words[1], words[0], *words[2:]]
        kind = ("order", "choice")[number % 2]
        bad = swapped if number % 2 else [*words[:-1], str(random.choice(WORDS))]
        found.append(Pair(f"p{number}", "grammar", kind, f"{kind}-{number % 4}", " ".join(words), " ".join(bad),
                          number >= 20))
    return [*found, Pair("long", "grammar", "order", "order-0", " ".join(WORDS[:1] * 70), "x", False)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    root = tmp_path_factory.mktemp("pairs")
    pretrained(root)
    write_pairs(root / "data/set/pairs.parquet", some_pairs())
    complete(root / "data/set", finished("data"))
    return Layout(root, root)


def stage_of(layout: Layout, place: str = PRETRAIN, home: Path | None = None, **settings: Any) -> Stage:
    """The stage on one trajectory, as before its first run."""
    name, there = place.replace("/", "_"), Layout(layout.root, home or layout.home)
    shutil.rmtree(layout.place(place) / "pairs", ignore_errors=True)
    shutil.rmtree(there.measured("pairs", name), ignore_errors=True)
    asked = PairsSettings(**{"set": "set", "draws": 100, **settings})
    ask(layout.root, "pairs", name, place=place, pairs=as_dict(asked))
    return open_stage("pairs", name, there)


@pytest.fixture(scope="module")
def script() -> Any:
    return load_script("pairs")


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetrace.lenses.pairs.figures.draw", lambda record: {})


def test_files_scores_and_figures(project: Layout) -> None:
    """Everything of one run, its last scores as the oracle gives them; the figures are drawn from the measurement."""
    folder = project.place(PRETRAIN) / "pairs"
    check_redrawn(stage_of(project), folder, "finetrace.lenses.pairs.summary.table")
    facts = read_manifest(folder).facts
    assert facts["steps"] == [0, 4, 9] and facts["head"] == "own" and facts["scoring"] == "word_l2r"
    assert facts["pairs"] == 24 and facts["left_out"] == {"too long": 1} and facts["not_acquired"]
    assert {p.stem for p in (folder / "figures").glob("*.png")} == {"accuracy", "acquisition", "paradigms"}
    assert {p.name for p in (folder / "scores").iterdir()} == {"index.parquet", *(
        f"step-{step:08d}.parquet" for step in (0, 4, 9))}
    index, scores = (read_table(folder / "scores" / f"{name}.parquet").to_pylist()
                     for name in ("index", "step-00000009"))
    model, words = masked_model(109), tokenizer()
    for row, found in zip(index, scores, strict=True):
        for side in ("good", "bad"):
            assert found[side] == pytest.approx(pseudo_log_likelihood(model, words, row[side], True), abs=1e-5)
    right = [points(row["good"], row["bad"]) for row in scores]
    by_paradigm = [np.mean([r for r, row in zip(right, index, strict=True)
                            if row["paradigm"] == name and not row["control"]])
                   for name in dict.fromkeys(row["paradigm"] for row in index)]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["accuracy"] == pytest.approx(np.mean(by_paradigm)) and "accuracy/order/control" in metrics
    assert (folder / "curves.csv").read_text().startswith("step,accuracy,accuracy/order,accuracy/choice")


def points(good: float, bad: float) -> float:
    return 0.5 if good == bad else float(good > bad)


@pytest.mark.usefixtures("without_figures")
def test_a_killed_stage_continues_and_a_checkpoint_costs_only_itself(project: Layout, script: Any, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def counted(folder: Path, *rest: Any) -> Any:
        if folder.name == "step-00000004" and "killed" not in done:
            done.append("killed")
            raise KeyboardInterrupt
        done.append(str(int(folder.name[5:])))
        return load_trained_encoder(folder, *rest)

    monkeypatch.setattr("finetrace.models.saved.load_trained_encoder", counted)
    script.main(stage_of(project, home=tmp_path, checkpoints="ends"))
    assert done == ["0", "9"]
    with pytest.raises(KeyboardInterrupt):
        script.main(stage_of(project, home=tmp_path))
    script.main(stage_of(project, home=tmp_path))
    assert done == ["0", "9", "killed", "4"]
    first = {p.name: p.read_bytes() for p in (project.place(PRETRAIN) / "pairs/scores").iterdir()}
    script.main(stage_of(project, home=tmp_path / "other"))
    assert {p.name: p.read_bytes() for p in (project.place(PRETRAIN) / "pairs/scores").iterdir()} == first
    script.main(stage_of(project, home=tmp_path, scoring="original", checkpoints="ends"))  # words of one piece
    scores = read_table(project.place(PRETRAIN) / "pairs/scores/step-00000009.parquet")
    assert scores.equals(read_table_of(first["step-00000009.parquet"]))


def read_table_of(content: bytes) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(content))


@pytest.mark.usefixtures("without_figures")
def test_a_fine_tuned_encoder_gets_the_head_back(project: Layout, script: Any, tmp_path: Path) -> None:
    finetuned(project.root)
    script.main(stage_of(project, "toy/task/ft/s1", tmp_path))
    folder = project.place("toy/task/ft/s1") / "pairs"
    facts = read_manifest(folder).facts
    assert facts["head"] == "re-attached from toy" and facts["axis"] == "fine-tuning steps"
    assert facts["not_acquired"]["all"] == "one checkpoint"


@pytest.mark.usefixtures("without_figures")
def test_models_and_sets_that_cannot_be_scored(project: Layout, script: Any, tmp_path: Path) -> None:
    from finetrace.models.load import load_encoder

    folder = project.place("bare/pretrain") / "trajectory"
    save_weights(load_encoder(project.model("toy")), folder / "checkpoints", 0)
    complete(folder, finished("trajectory", model="toy"))
    with pytest.raises(FinetraceError, match=r"step-00000000: has no masked-word head"):
        script.main(stage_of(project, "bare/pretrain", tmp_path))
    with pytest.raises(FinetraceError, match="step 7 was not recorded"):
        script.main(stage_of(project, home=tmp_path, checkpoints=[7]))
    for name, pairs, said in (("long", some_pairs()[-1:], "none of its 1 pairs fits into the 64 tokens"),
                              ("strange", [Pair("a", "", "x", "x", "qq ww ee", "ee ww", False)], "are unknown to the")):
        write_pairs(project.root / f"data/{name}/pairs.parquet", pairs)
        complete(project.root / f"data/{name}", finished("data"))
        with pytest.raises(FinetraceError, match=said):
            script.main(stage_of(project, home=tmp_path, set=name))


@pytest.mark.usefixtures("without_figures")
def test_a_word_more_and_the_study_finds_the_set() -> None:
    from finetrace.study import parse_study
    from finetrace.study.plan import plan_of

    content = {"study": {"name": "x"}, "pretrain": {"m": {"corpus": "world"}}, "minimal_pairs": {"own": {}},
               "look": {"pairs": "m/pretrain"}}
    items = {(item.stage, item.key): item for item in plan_of(parse_study(content, "params.yaml"))}
    assert items["pairs", "m_pretrain"].paths == {"at": "m/pretrain", "set": "own"}
    assert "world" in (items["minimal-pairs", "own"].asked or {})
    more = content | {"minimal_pair_files": {"blimp": {"path": "blimp/data"}}}
    with pytest.raises(FinetraceError, match=r"pairs\.set: is not given"):
        parse_study(more, "params.yaml")
    with pytest.raises(FinetraceError, match=r"pairs\.set, at m/pretrain: 'blim' is not defined; known: "):
        parse_study(more | {"pairs": {"set": "blim"}}, "params.yaml")
    study = parse_study(more | {"pairs": {"set": "blimp"}}, "params.yaml")
    files = next(item for item in plan_of(study) if item.stage == "minimal-pair-files")
    assert files.folder == "minimal-pairs" and files.paths == {"path": "blimp/data"}


@pytest.mark.usefixtures("without_figures")
def test_rows_of_the_embedding_beyond_the_tokens_have_no_probability(tmp_path: Path, script: Any) -> None:
    import torch

    pretrained(tmp_path, steps=(9,))
    pretrained(tmp_path, "padded", steps=(9,))
    model = masked_model(109)
    tokens = len(model.cls.predictions.bias)
    model.resize_token_embeddings(tokens + 7, mean_resizing=False)
    with torch.no_grad():
        model.cls.predictions.bias[tokens:] = 50.0
    folder = tmp_path / "outputs/padded/pretrain/trajectory"
    shutil.rmtree(folder)
    save_weights(model, folder / "checkpoints", 9)
    complete(folder, finished("trajectory", model="padded"))
    write_pairs(tmp_path / "data/set/pairs.parquet", some_pairs())
    complete(tmp_path / "data/set", finished("data"))
    scores = []
    for name in ("toy", "padded"):
        script.main(stage_of(Layout(tmp_path, tmp_path), f"{name}/pretrain"))
        found = read_table(tmp_path / f"outputs/{name}/pretrain/pairs/scores/step-00000009.parquet")
        scores.append(np.array([found["good"].to_numpy(), found["bad"].to_numpy()]))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
