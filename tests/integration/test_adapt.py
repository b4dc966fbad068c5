"""Adaptive pre-training: from which checkpoints, with which head, and the same bytes after a kill."""

import dataclasses
import json
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file
from tests.damage import WAYS
from tests.masked_fixtures import finetuned, masked_model, pretrained
from tests.training_drills import adapt_job, digests, run
from tests.training_fixtures import sentences, tokenizer

from finetrace.config.models import AdaptSettings
from finetrace.errors import FinetraceError
from finetrace.models.load import load_classifier, load_tokenizer
from finetrace.models.masked import load_masked
from finetrace.models.timeline import open_timeline
from finetrace.store.checkpoints import list_weights
from finetrace.store.files import atomic_folder
from finetrace.store.manifest import complete
from finetrace.store.tables import read_table
from finetrace.training.adapt import adapt, recipe_of, starts_of
from finetrace.training.mlm import Masker, held_out_words, prepare_texts

TEXTS = [f"<< {text} >>" for text in sentences(70, 21)[0]] + [sentences(70, 21)[0][0]]
SETTINGS = AdaptSettings(start="toy/pretrain", corpus="task", strip=("<< ", " >>"), epochs=3.0, batch_size=16,
                         accumulate=2, learning_rate=2e-2, precision="fp32", checkpoints={"log": 3})
SEVERAL = dataclasses.replace(SETTINGS, from_steps=[0, 9], epochs=1.0, evaluate={"every": 2})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("adapt")
    pretrained(root)
    finetuned(root)
    return root


def go(root, where, settings, texts=TEXTS, **options):
    torch.set_num_threads(1)
    wanted = "ends" if settings.from_steps == "last" else settings.from_steps
    timeline = open_timeline(root / "outputs" / settings.start / "trajectory", root / "models", wanted)
    with atomic_folder(where / "model") as model_out, atomic_folder(where / "trajectory") as out:
        return adapt(settings, timeline, texts, 7, scratch=where / "scratch", out=out, model_out=model_out, name="x",
                     **options)


@pytest.fixture(scope="module")
def calm(root):
    assert run(adapt_job, root / "calm", SETTINGS, TEXTS, 1e9) == 0
    return root / "calm"


@pytest.fixture(scope="module")
def calm_several(root):
    assert run(adapt_job, root / "calm-several", SEVERAL, TEXTS, 1e9) == 0
    return root / "calm-several"


def evaluations(folder):
    return [r for r in read_table(folder / "trajectory/history.parquet").to_pylist() if r["kind"] == "eval"]


def test_the_loss_on_the_texts_falls_and_its_own_checkpoints_are_the_trajectory(calm):
    found = evaluations(calm)
    assert found[-1]["loss"] < found[0]["loss"] - 0.05
    assert found[-1]["step"] == 15 and list(list_weights(calm / "trajectory/checkpoints")) == [0, 1, 4, 15]
    metrics = json.loads((calm / "trajectory/metrics.json").read_text())
    assert (metrics["before/loss"], metrics["validation/loss"]) == (found[0]["loss"], found[-1]["loss"])
    rates = [r["learning_rate"] for r in read_table(calm / "trajectory/history.parquet").to_pylist()
             if r["kind"] == "train"]
    assert rates.index(max(rates)) == 1 and max(rates) == pytest.approx(2e-2), "6 % of the steps"


def test_step_0_is_the_start_with_its_head(root, calm):
    """Weights, and by another way the loss: that of the start on the same masked words."""
    start = root / "outputs/toy/pretrain/trajectory/checkpoints/step-00000009"
    first, own = (load_file(f / "model.safetensors") for f in (calm / "trajectory/checkpoints/step-00000000", start))
    assert set(first) == set(own) and all(torch.equal(first[n], own[n]) for n in own)
    assert any(n.startswith("cls.predictions.transform") for n in own)
    facts = go(root, root / "facts", dataclasses.replace(SETTINGS, steps=1))
    assert (facts["axis"], facts["start"], facts["starts"], facts["head"]) == (
        "adaptation steps", "toy/pretrain", [9], "carried along")
    assert facts["texts"] == {"corpus": 71, "clean": 70, "train": 67, "validation": 3,
                              "tokens": facts["texts"]["tokens"],
                              "rows_cut": facts["texts"]["rows_cut"], "tokens_cut": facts["texts"]["tokens_cut"],
                              "unknown": 0}
    model = load_masked(start)
    texts = prepare_texts([t.removeprefix("<< ").removesuffix(" >>") for t in TEXTS[:70]], tokenizer(), model,
                          facts["seeds"]["held out"], max_tokens=64)
    measure = held_out_words(texts.held_out, Masker(tokenizer(), recipe_of(SETTINGS), sparse=False),
                             facts["seeds"]["masks"])
    assert measure(model)["loss"] == pytest.approx(evaluations(calm)[0]["loss"], abs=1e-6)


def test_the_finished_model_has_the_last_weights_and_the_starts_dropout(calm, calm_several):
    for folder, last in ((calm, "step-00000015"), (calm_several, "step-00000009")):
        model, weights = (
            load_masked(folder / "model"),
            load_file(folder / "trajectory/checkpoints" / last / "model.safetensors"),
        )
        assert all(torch.equal(model.state_dict()[n], v) for n, v in weights.items())
        assert model.config.hidden_dropout_prob == 0.1 and model.config.classifier_dropout is None
        assert load_tokenizer(folder / "model").get_vocab() == tokenizer().get_vocab()
        load_classifier(folder / "model", ["no", "yes"], 0)


def test_dropout_of_the_adaptation_and_of_later_fine_tuning_are_two(root):
    go(root, root / "dropout", dataclasses.replace(SETTINGS, steps=1, dropout=0.0))
    assert load_masked(root / "dropout/model").config.hidden_dropout_prob == 0.1
    assert load_masked(root / "dropout/trajectory/checkpoints/step-00000001").config.hidden_dropout_prob == 0.0
    go(root, root / "dropout", dataclasses.replace(SETTINGS, steps=1, dropout=0.0, finetune_dropout=0.2))
    assert load_masked(root / "dropout/model").config.hidden_dropout_prob == 0.2


def test_several_starts_become_one_trajectory_on_the_axis_of_the_start(root, calm, calm_several):
    steps = list_weights(calm_several / "trajectory/checkpoints")
    assert list(steps) == [0, 9] and not (calm_several / "trajectory/signals.parquet").exists()
    rows = evaluations(calm_several)
    assert [(r["step"], r["split"]) for r in rows] == [(0, "before"), (0, "validation"), (9, "before"),
                                                       (9, "validation")]
    assert rows[1]["loss"] < rows[0]["loss"] and rows[3]["loss"] < rows[2]["loss"]
    assert rows[2]["loss"] == evaluations(calm)[0]["loss"], "the same held-out words"
    for step, row in zip((0, 9), rows[1::2], strict=True):
        history = read_table(calm_several / f"trajectory/histories/step-{step:08d}.parquet").to_pylist()
        assert [r["step"] for r in history if r["kind"] == "eval"] == [0, 2, 4, 5]
        assert history[-1]["loss"] == row["loss"]
    facts = go(root, root / "three", dataclasses.replace(SEVERAL, from_steps="all", steps=1, keep_history=False))
    assert (facts["axis"], facts["starts"]) == ("pre-training steps", [0, 4, 9])
    assert not (root / "three/trajectory/histories").exists()


def test_an_adapted_trajectory_opens_like_any_other_and_can_be_adapted_again(root, calm_several):
    from tests.outputs import manifest

    out = root / "outputs/mid/adapt/trajectory"
    with atomic_folder(out) as folder:
        import shutil

        shutil.copytree(calm_several / "trajectory", folder, dirs_exist_ok=True)
        done = manifest("trajectory", "adapt", "mid", model="mid")
        done.facts = {"axis": "pre-training steps", "model": "mid"}
        complete(folder, done)
        shutil.copytree(calm_several / "model", root / "models/mid")
    facts = go(root, root / "again", dataclasses.replace(SETTINGS, start="mid/adapt", from_steps="all", steps=1))
    assert (facts["axis"], facts["start"], facts["starts"]) == ("pre-training steps", "mid/adapt", [0, 9])


def test_a_matched_control_differs_in_the_texts_only(root, calm):
    """As many steps and the same recipe on other texts: same start, same schedule, other weights."""
    control = dataclasses.replace(SETTINGS, corpus="world", steps=15)
    go(root, root / "control", control, sentences(50, 3)[0])
    ours, other = (read_table(f / "trajectory/history.parquet").to_pylist() for f in (calm, root / "control"))
    rates = [[r["learning_rate"] for r in rows if r["kind"] == "train"] for rows in (ours, other)]
    assert rates[0] == rates[1]
    assert list(list_weights(root / "control/trajectory/checkpoints")) == [0, 1, 4, 15]
    weights = [load_file(f / "trajectory/checkpoints/step-00000015/model.safetensors")
               for f in (calm, root / "control")]
    assert not torch.equal(*(w["cls.predictions.bias"] for w in weights))


def test_from_a_fine_tuned_encoder_the_pre_trained_head_is_put_back(root):
    settings = dataclasses.replace(SETTINGS, start="toy/task/ft/s1", steps=2)
    facts = go(root, root / "tuned", settings)
    assert facts["head"] == "of models/toy, put back" and facts["starts"] == [3]
    first = load_file(root / "tuned/trajectory/checkpoints/step-00000000/model.safetensors")
    tuned = load_file(root / "outputs/toy/task/ft/s1/trajectory/checkpoints/step-00000003/model.safetensors")
    head = load_file(root / "models/toy/model.safetensors")
    assert torch.equal(first["cls.predictions.transform.dense.weight"], head["cls.predictions.transform.dense.weight"])
    name = "bert.encoder.layer.1.output.dense.weight"
    assert torch.equal(first[name], tuned[name]) and not torch.equal(first[name], head[name])


@pytest.mark.slow
@pytest.mark.parametrize("faults", [
    [("state, without marker", 5), ("weights being written", 1)],
    [("tables being merged", 1), ("checkpoints being copied", 1)],
], ids=lambda faults: " then ".join(f"{n} {c}" for n, c in faults))
def test_killed_and_continued_it_ends_with_the_same_bytes(root, calm, faults, request):
    drill(root, calm, SETTINGS, faults, request)


@pytest.mark.parametrize("faults", [
    [("state, half written", 3), ("step", 6), ("checkpoints being copied", 4)],
], ids=lambda faults: " then ".join(f"{n} {c}" for n, c in faults))
def test_killed_between_starts_it_ends_with_the_same_bytes(root, calm_several, faults, request):
    drill(root, calm_several, SEVERAL, faults, request)


@pytest.fixture(scope="module")
def killed(root):
    """An adaptation that was killed in the middle: states after some steps, weights, segments of tables."""
    assert run(adapt_job, root / "killed", SETTINGS, TEXTS, 0, ("step", 9)) == -signal.SIGKILL
    return root / "killed"


@pytest.fixture(scope="module")
def killed_between(root):
    """Two adaptations of which the first has ended and the second was killed."""
    assert run(adapt_job, root / "killed-between", SEVERAL, TEXTS, 0, ("step", 8)) == -signal.SIGKILL
    assert (root / "killed-between/scratch/done/step-00000000").is_dir()
    return root / "killed-between"


@pytest.mark.parametrize(("file", "how"), [
    ("checkpoint-*/optimizer.pt", "flipped"), ("segments/history-*.parquet", "truncated"),
    *(pytest.param(*one, marks=pytest.mark.slow) for one in (
        ("checkpoint-*/model.safetensors", "truncated"), ("checkpoint-*/trainer_state.json", "flipped"),
        ("checkpoints/step-*/model.safetensors", "truncated"), ("segments/history-*.parquet", "flipped")))])
def test_damage_in_what_a_killed_training_left_alters_no_result(root, calm, killed, file, how):
    """The newest file of each kind: an earlier state is taken, or the training starts over."""
    resume(root / f"damaged-{how}-{file.replace('/', '-').replace('*', '')}", killed, f"scratch/from-*/{file}", how,
           SETTINGS, calm)


@pytest.mark.parametrize(("file", "how"), [
    ("checkpoints/step-*/model.safetensors", "flipped"),
    *(pytest.param(*one, marks=pytest.mark.slow) for one in (("history.parquet", "truncated"),
                                                             ("whole.json", "flipped")))])
def test_damage_in_an_adaptation_that_had_ended_alters_no_result(root, calm_several, killed_between, file, how):
    resume(root / f"damaged-done-{file.replace('/', '-').replace('*', '')}", killed_between,
           f"scratch/done/step-00000000/{file}", how, SEVERAL, calm_several)


def resume(where, killed, file, how, settings, calm):
    shutil.copytree(killed, where)
    WAYS[how](sorted(where.glob(file))[-1])
    assert run(adapt_job, where, settings, TEXTS, 0) == 0
    for part in ("trajectory", "model"):
        assert digests(where / part) == digests(calm / part)


def drill(root, calm, settings, faults, request):
    where = root / "".join(c if c.isalnum() else "-" for c in request.node.name)
    for fault in faults:
        assert run(adapt_job, where, settings, TEXTS, 0, fault) == -signal.SIGKILL, fault
        assert not (where / "trajectory").exists()
    assert run(adapt_job, where, settings, TEXTS, 0) == 0
    for part in ("trajectory", "model"):
        assert digests(where / part) == digests(calm / part)


def test_finished_trainings_are_not_repeated(root, calm_several, tmp_path, monkeypatch):
    from finetrace.training import adapt as module

    begun = []
    original = module.train_masked
    monkeypatch.setattr(module, "train_masked", lambda *a, **k: (begun.append(k["name"]), original(*a, **k))[1])
    seen = []
    go(root, tmp_path, SEVERAL, watch=seen.extend)
    assert begun == ["x from step 0 (1 of 2)", "x from step 9 (2 of 2)"]
    assert [(r["step"], r["split"]) for r in seen] == [(0, "before"), (0, "validation"), (9, "before"),
                                                       (9, "validation")]
    shutil.rmtree(tmp_path / "scratch/done/step-00000009")
    go(root, tmp_path, SEVERAL)
    assert begun[2:] == ["x from step 9 (2 of 2)"]
    assert digests(tmp_path / "trajectory") == digests(calm_several / "trajectory")


def test_bad_starts_are_errors(root, tmp_path):
    with pytest.raises(FinetraceError, match=r"step 5 was not recorded in .*there are 0, 4, 9"):
        go(root, tmp_path, dataclasses.replace(SETTINGS, from_steps=[5]))
    timeline = open_timeline(root / "outputs/toy/pretrain/trajectory", root / "models", [4])
    with pytest.raises(FinetraceError, match="from_steps: toy/pretrain has no step 50; it has 0, 4, 9"):
        starts_of(dataclasses.replace(SETTINGS, from_steps=[4, 50]), timeline)
    assert starts_of(dataclasses.replace(SETTINGS, from_steps=[4]), timeline) == [4]
    with pytest.raises(FinetraceError, match="0 text is left to learn from"):
        go(root, tmp_path, SETTINGS, ["<<  >>", " "])
    with pytest.raises(FinetraceError, match="block_tokens: 128 are more than the model's longest input, 64"):
        go(root, tmp_path, dataclasses.replace(SETTINGS, pack="blocks", block_tokens=128))


def test_a_start_without_a_head_is_an_error(root, tmp_path):
    from tests.outputs import manifest
    from tests.training_fixtures import bert_config, model_folder

    from finetrace.store.checkpoints import mark

    out = root / "outputs/bare/pretrain/trajectory"
    with atomic_folder(out) as folder:
        mark(model_folder(folder / "checkpoints/step-00000000", bert_config()), 0)
        made = manifest("trajectory", "pretrain", "bare")
        made.facts = {"model": "toy"}
        complete(folder, made)
    with pytest.raises(FinetraceError, match=r"has no masked-word head: .*not a sentence encoder or a classifier"):
        go(root, tmp_path, dataclasses.replace(SETTINGS, start="bare/pretrain"))


def test_whole_words_blocks_and_a_choice_of_texts(root, tmp_path):
    facts = go(root, tmp_path, dataclasses.replace(SETTINGS, steps=2, max_texts=30, whole_words=True, pack="blocks",
                                                   block_tokens=32))
    assert facts["texts"]["clean"] == 30 and 0 < facts["texts"]["train"] < 29
    assert masked_model(0).num_parameters() == facts["parameters"]


def test_a_published_checkpoint_is_read_while_it_is_there(root, tmp_path, monkeypatch):
    """Weights of a series are fetched for one training and may be gone after it; the next start is fetched in its
    turn."""
    import contextlib
    import shutil

    from finetrace.models import timeline as module

    @contextlib.contextmanager
    def fetched(self, step):
        with original(self, step) as folder:
            shutil.copytree(folder, tmp_path / f"fetched-{step}")
        there.append(step)
        yield tmp_path / f"fetched-{step}"
        shutil.rmtree(tmp_path / f"fetched-{step}")

    there: list[int] = []
    original = module.Timeline.checkpoint
    monkeypatch.setattr(module.Timeline, "checkpoint", fetched)
    go(root, tmp_path, dataclasses.replace(SEVERAL, steps=2))
    assert there == [0, 9] and not list(tmp_path.glob("fetched-*"))
