"""The stage cloze on tiny models: files, the last layer as the model itself, killed and continued, heads
re-attached."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.hidden_outputs import check_redrawn, finished, load_script
from tests.stages import ask
from tests.training_fixtures import WORDS, bert_config, sentences, tokenizer

from finetrace.config.base import as_dict
from finetrace.data.facts import Fact, write_facts
from finetrace.errors import FinetraceError
from finetrace.layout import Layout
from finetrace.lenses.cloze.settings import ClozeSettings, HeadsSettings, TunedSettings
from finetrace.models.saved import load_trained_encoder
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.manifest import complete, read_manifest
from finetrace.store.tables import read_long_table, read_table, write_table
from finetrace.training.checkpoints import save_weights

SHORT = {"heads": HeadsSettings(steps=6, batch=16, texts=40), "tuned": TunedSettings(steps=6, batch=16)}
PRETRAIN = "toy/pretrain"


def masked_model(seed):
    from transformers import BertForMaskedLM

    torch.manual_seed(seed)
    model = BertForMaskedLM(bert_config())
    with torch.no_grad():  # large enough for the checkpoints to say different words
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def save_trajectory(layout, place, models, **facts):
    """models: step -> model."""
    folder = layout.place(place) / "trajectory"
    for step, model in models.items():
        save_weights(model, folder / "checkpoints", step)
    complete(folder, finished("trajectory", model="toy", **facts))


def some_facts():
    random, found = np.random.default_rng(0), []
    for number in range(30):
        relation, held_out = ("first", "second", "third")[number % 3], number >= 24
        one, two, answer = random.choice(WORDS, 3, replace=False)
        sentence = (f"{one} {two} [MASK]", f"[MASK] {one}", f"{one} [MASK] {two} {two} {one}")[number % 3]
        right = tuple(sorted({answer, *random.choice(WORDS, 6)}))
        kind = "N-1" if number % 3 else "1-1"
        found.append(Fact(f"f{number}", "world", relation, kind, one, answer, (sentence,), True, held_out, right))
    found.append(Fact("unknown", "world", "first", "1-1", "x", "nowhere", ("good1 [MASK]",), True))
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("cloze")
    layout = Layout(root, root)
    folder = layout.model("toy")
    masked_model(3).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    complete(folder, finished("model"))
    save_trajectory(layout, PRETRAIN, {0: masked_model(1), 5: masked_model(2), 9: masked_model(3)})
    write_facts(layout.task("facts") / "facts.parquet", some_facts())
    write_table(layout.task("world") / "corpus.parquet", {"text": sentences(60, 5)[0]})
    for name in ("facts", "world"):
        complete(layout.task(name), finished("data"))
    return layout


def stage_of(layout: Layout, settings: ClozeSettings, place: str = PRETRAIN, home: Path | None = None) -> Stage:
    """The stage on one trajectory, as before its first run: without outputs, and without a kept measurement."""
    name, there = place.replace("/", "_"), Layout(layout.root, home or layout.home)
    shutil.rmtree(layout.place(place) / "cloze", ignore_errors=True)
    shutil.rmtree(there.measured("cloze", name), ignore_errors=True)
    ask(layout.root, "cloze", name, place=place, cloze=as_dict(settings) | {"facts": "facts", "corpus": "world"})
    return open_stage("cloze", name, there)


@pytest.fixture(scope="module")
def script():
    return load_script("cloze")


@pytest.fixture(autouse=True)
def without_figures(script, whole, monkeypatch):
    """One run drew them; they take most of the time."""
    monkeypatch.setattr("finetrace.lenses.cloze.figures.draw", lambda record: {})


@pytest.fixture(scope="module")
def whole(project, script):
    """The stage's folder with all read-outs."""
    script.main(stage_of(project, ClozeSettings(**SHORT)))
    return project.place(PRETRAIN) / "cloze"


def test_files_and_facts(whole):
    found = read_manifest(whole)
    assert found.kind == "lens" and found.facts["steps"] == [0, 5, 9] and found.facts["head"] == "own"
    assert found.facts["layers"] == 3 and found.facts["heads_steps"] == [0, 5, 9] and found.facts["held_out"] == 6
    assert found.facts["relations"]["world/first"] == {"facts": 11, "kept": 10, "unknown": 1}
    assert set(found.facts["heads"]["5"]) == {"trained", "tuned"}
    assert {p.name for p in (whole / "facts").iterdir()} == {"index.parquet", "step-00000000.parquet",
                                                             "step-00000005.parquet",
                                                            "step-00000009.parquet"}
    assert {p.stem for p in (whole / "figures").glob("*.png")} == {"precision", "readouts", "relations", "changes"}
    index = read_table(whole / "facts" / "index.parquet")
    assert (
        index.num_rows == 30
        and index["fact"].to_pylist() == list(range(30))
        and "unknown" not in index["fact_id"].to_pylist()
    )
    ranks = read_table(whole / "facts" / "step-00000005.parquet")
    assert ranks.num_rows == 3 * 3 * 30 and len(ranks["top"][0]) == 5
    table = read_table(whole / "table.parquet")
    assert set(table["readout"].to_pylist()) == {"own", "trained", "tuned"}
    assert set(table["vocabulary"].to_pylist()) == {"common", "full", "candidates"}
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["world/held_out_chance"] > 0.1 and "world/trained_best_layer" in metrics


def test_the_last_layer_is_the_model_itself(whole, project):
    """The plain last-layer pipeline: tokenise, whole model, softmax at the mask, sort."""
    model, words = masked_model(3), tokenizer()
    ranks = read_table(whole / "facts" / "step-00000009.parquet").to_pylist()
    own = {row["fact"]: row for row in ranks if row["readout"] == "own" and row["layer"] == 2}
    tuned = {row["fact"]: row for row in ranks if row["readout"] == "tuned" and row["layer"] == 2}
    some = some_facts()[:30]
    assert len(some) == 30
    for number, fact in enumerate(some):
        batch = words(fact.sentences[0], return_tensors="pt")
        with torch.no_grad():
            scores = (
                model(**batch).logits[0, (batch["input_ids"][0] == words.mask_token_id).nonzero()[0, 0]].log_softmax(-1)
            )
        gold = words.convert_tokens_to_ids(fact.object)
        assert own[number]["rank_full"] == scores.argsort(descending=True).tolist().index(gold) + 1
        assert own[number]["log_prob"] == pytest.approx(scores[gold].item(), abs=1e-4)
        inside = [i for i in scores.argsort(descending=True).tolist()
                  if i >= 5]  # all but special tokens are common words
        assert own[number]["rank"] == inside.index(gold) + 1 and own[number]["top"] == inside[:5]
        of_type = [i for i in inside if words.convert_ids_to_tokens(i) in fact.candidates]
        assert own[number]["rank_candidates"] == of_type.index(gold) + 1
        assert tuned[number] == own[number] | {"readout": "tuned"}


def test_a_killed_stage_continues_and_a_checkpoint_costs_only_itself(project, script, tmp_path, monkeypatch, whole):
    done = []

    def counted(folder, *rest):
        step = int(folder.name[5:])
        if len(done) == 1 and step == 5 and "killed" not in done:
            done.append("killed")
            raise KeyboardInterrupt
        done.append(step)
        return load_trained_encoder(folder, *rest)

    monkeypatch.setattr("finetrace.models.saved.load_trained_encoder", counted)
    stage = stage_of(project, ClozeSettings(readouts=("own",), checkpoints="ends"), home=tmp_path)
    script.main(stage)
    assert done == [0, 9]
    done.clear()
    stage = stage_of(project, ClozeSettings(readouts=("own",)), home=tmp_path)
    done.append(0)  # as if one had been done in this run
    with pytest.raises(KeyboardInterrupt):
        script.main(stage)
    script.main(stage)
    assert done == [0, "killed", 5]
    table = read_table(project.place(PRETRAIN) / "cloze" / "table.parquet")
    assert set(table["step"].to_pylist()) == {0, 5, 9}
    script.main(stage_of(project, ClozeSettings(**SHORT)))  # the other settings were kept, too
    assert done == [0, "killed", 5]


def test_equal_runs_are_equal(project, script, whole, tmp_path):
    before = {p.name: p.read_bytes() for p in (whole / "facts").iterdir()}
    script.main(stage_of(project, ClozeSettings(**SHORT), home=tmp_path))
    assert {p.name: p.read_bytes() for p in (whole / "facts").iterdir()} == before


def test_a_fine_tuned_encoder_gets_the_head_back(project, script, whole):
    """Before the first step a fine-tuning knows what its model knows, also where its checkpoints hold the head
    alone."""
    from finetrace.models.load import load_classifier
    from finetrace.models.saved import freeze_encoder, remember_base

    tuned = load_classifier(project.model("toy"), ["a", "b"], seed=1)
    first = load_classifier(project.model("toy"), ["a", "b"], seed=1)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.base_model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    probe = load_classifier(project.model("toy"), ["a", "b"], seed=1, head="linear")
    freeze_encoder(probe)
    remember_base(probe, project.model("toy"))
    save_trajectory(project, "toy/task/ft/s1", {0: first, 8: tuned})
    save_trajectory(project, "toy/task/lp/s1", {0: probe})
    ranks = {}
    for place in ("toy/task/ft/s1", "toy/task/lp/s1"):
        script.main(stage_of(project, ClozeSettings(readouts=("own",)), place))
        folder = project.place(place) / "cloze"
        assert read_manifest(folder).facts["head"] == "re-attached from toy"
        ranks[place] = read_table(folder / "facts" / "step-00000000.parquet")["rank"].to_pylist()
    own = [r["rank"] for r in read_table(whole / "facts" / "step-00000009.parquet").to_pylist()
           if r["readout"] == "own"]
    assert ranks["toy/task/ft/s1"] == ranks["toy/task/lp/s1"] == own
    table = read_long_table(project.place("toy/task/ft/s1") / "cloze" / "table.parquet")
    assert len(table.select(step=8, relation="", layer=2, statistic="lost", vocabulary="common", held_out=False))


def test_equal_checkpoints_are_done_once(project, script, tmp_path):
    save_trajectory(project, "same/pretrain", {0: masked_model(1), 1: masked_model(1)})
    shutil.copytree(project.model("toy"), project.model("same"), dirs_exist_ok=True)
    script.main(stage_of(project, ClozeSettings(readouts=("own",)), "same/pretrain", tmp_path))
    assert len(list((tmp_path / ".finetrace/results/cloze").iterdir())) == 1
    assert len(list((project.place("same/pretrain") / "cloze/facts").iterdir())) == 3


def test_trained_readouts_at_the_ends_only(project, script, tmp_path):
    script.main(stage_of(project, ClozeSettings(**SHORT, readouts=("own", "tuned"), heads_checkpoints="ends"),
                         home=tmp_path))
    table = read_table(project.place(PRETRAIN) / "cloze" / "table.parquet")
    steps = {(r["readout"], r["step"]) for r in table.select(["readout", "step"]).to_pylist()}
    assert steps == {("own", 0), ("own", 5), ("own", 9), ("tuned", 0), ("tuned", 9)}


def test_figures_are_drawn_from_the_stored_measurement(project, tmp_path, monkeypatch):
    monkeypatch.undo()  # with figures
    stage = stage_of(project, ClozeSettings(readouts=("own",), checkpoints="ends"), home=tmp_path)
    check_redrawn(stage, project.place(PRETRAIN) / "cloze", "finetrace.lenses.cloze.summary.table")


def test_errors_name_what_to_do(project, script, tmp_path):
    from finetrace.models.load import load_encoder

    save_trajectory(project, "bare/pretrain", {0: load_encoder(project.model("toy"))})
    with pytest.raises(FinetraceError, match=r"step-00000000: has no masked-word head"):
        script.main(stage_of(project, ClozeSettings(readouts=("own",)), "bare/pretrain", tmp_path))
    with pytest.raises(FinetraceError, match="step 7 was not recorded"):
        script.main(stage_of(project, ClozeSettings(readouts=("own",), checkpoints=[7]), home=tmp_path))
    with pytest.raises(FinetraceError, match=r"words\.txt"):
        script.main(stage_of(project, ClozeSettings(readouts=("own",), vocabulary="words.txt"), home=tmp_path))
    broken = masked_model(1)
    with torch.no_grad():
        broken.bert.encoder.layer[1].output.LayerNorm.bias += float("nan")
    save_trajectory(project, "broken/pretrain", {0: broken})
    with pytest.raises(FinetraceError, match=r"step 0 of .*broken.*layer 2 of row .* is not finite"):
        script.main(stage_of(project, ClozeSettings(readouts=("own",)), "broken/pretrain", tmp_path))


def test_rows_of_the_embedding_beyond_the_tokens_change_nothing(project, script, tmp_path):
    """Padded vocabularies: not among the candidates, not in the normaliser, not in what the read-outs learn from."""
    layout = Layout(tmp_path, tmp_path)
    for folder in ("data", "models"):
        shutil.copytree(project.root / folder, layout.root / folder)
    model = masked_model(3)
    tokens = len(model.cls.predictions.bias)
    model.resize_token_embeddings(tokens + 7, mean_resizing=False)
    with torch.no_grad():
        model.cls.predictions.bias[tokens:] = 50.0
    save_trajectory(layout, PRETRAIN, {9: model})
    save_trajectory(layout, "other/pretrain", {9: masked_model(3)})
    settings = ClozeSettings(**SHORT, vocabulary="full")
    tables = []
    for place in (PRETRAIN, "other/pretrain"):
        script.main(stage_of(layout, settings, place))
        tables.append(read_table(layout.place(place) / "cloze/facts/step-00000009.parquet").to_pandas())
    for name in ("rank", "rank_full", "rank_candidates"):
        assert tables[0][name].tolist() == tables[1][name].tolist(), name
    np.testing.assert_allclose(tables[0]["log_prob"], tables[1]["log_prob"], atol=1e-5)
