"""A synthetic `hidden` folder: what the stage hidden writes for one trajectory, without any model."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetrace.layout import Layout
from finetrace.pipeline.lens import write_lens
from finetrace.pipeline.stage import Stage, open_stage
from finetrace.store.arrays import write_array
from finetrace.store.hidden import HiddenStates, read_hidden, step_name
from finetrace.store.manifest import Manifest, complete
from finetrace.store.tables import write_table
from tests.pictures import sketch
from tests.stages import ask, of_run

CLS, SEP, FIRST_WORD, WORDS = 2, 3, 5, 40
TRAJECTORY = {"model": "micro-a", "task": "micro-sentiment", "method": "ft", "seed": 1}
NAME, PLACE = "micro-a_micro-sentiment_ft_s1", "micro-a/micro-sentiment/ft/s1"


def make_hidden(folder: Path, *, steps: tuple[int, ...] = (0, 8, 64), layers: int = 3, dim: int = 16,
                rows: dict[str, int] | None = None, token_rows: dict[str, int] | None = None, classes: int = 2,
                seed: int = 0,
                length: tuple[int, int] = (5, 12), dtype: str = "float32", vectors: tuple[str, ...] = ("cls", "mean"),
                labels: np.ndarray | None = None, spans: int = 0,
                damage: dict[tuple[str, int], Any] | None = None) -> HiddenStates:
    """Write the folder (an old one is replaced) and open it.

    layers: hidden states, the embedding output included;  rows: examples per split, by default 40 of train and
    validation;
    token_rows: of these with tokens, by default 12 of validation (evenly spread);  length: fewest and most tokens of an
    example, [CLS] and [SEP] included;  labels: (row,) instead of 0, 1, .., 0, 1, ..;  spans: 1 for a task of words, 2
    of word pairs: span.npy instead of cls.npy and mean.npy, two examples of a split sharing a sentence;  damage:
    {(kind, step): function} that changes an array (layer, item, dim) in place before it is written.

    A token is its type's vector + a common direction + the sentence's vector + noise; what is new with step and layer
    is a class direction: at step 0 and in layer 0 classes cannot be told apart, at the end of the last layer a line
    separates them. [CLS] shows it most. [SEP] is an outlier of five times the norm.
    """
    rows, token_rows = rows or {"train": 40, "validation": 40}, {"validation": 12} if token_rows is None else token_rows
    random = np.random.default_rng(seed)
    count = sum(rows.values())
    splits = np.repeat(list(rows), list(rows.values()))
    ids = np.concatenate([np.arange(n) for n in rows.values()])
    labels = ids % classes if labels is None else np.asarray(labels)
    lengths = random.integers(length[0], length[1] + 1, count)
    kept = np.zeros(count, dtype=bool)
    for split, wanted in token_rows.items():
        inside = np.flatnonzero(splits == split)
        kept[inside[np.linspace(0, len(inside) - 1, wanted).round().astype(int)]] = True
    owner = np.repeat(np.arange(count), lengths)
    position = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    first, last = position == 0, position == lengths[owner] - 1
    token_ids = np.where(first, CLS, np.where(last, SEP, random.integers(FIRST_WORD, FIRST_WORD + WORDS, len(owner))))

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    offsets = np.where(kept, np.cumsum(np.where(kept, lengths, 0)) - np.where(kept, lengths, 0), -1)
    of_kept = kept[owner]
    write_table(folder / "index.parquet", {
        "split": splits.tolist(), "example_id": ids.astype(np.int64), "label": labels.astype(np.int64),
        "sentence": ids // 2 if spans else ids, "length": lengths.astype(np.int32),
        "token_offset": offsets.astype(np.int64)})
    write_table(folder / "tokens.parquet", {
        "row": owner[of_kept].astype(np.int32), "position": position[of_kept].astype(np.int32),
        "token_id": token_ids[of_kept].astype(np.int32), "special": (first | last)[of_kept]})

    types = random.normal(size=(FIRST_WORD + WORDS, dim))
    common = random.normal(size=dim)
    sentence = random.normal(size=(count, dim))
    directions = np.linalg.qr(random.normal(size=(dim, max(classes, 1))))[0].T * np.sqrt(dim)
    for number, step in enumerate(steps):
        time = number / max(1, len(steps) - 1)
        states = np.empty((layers, len(owner), dim))
        for layer in range(layers):
            depth = layer / max(1, layers - 1)
            shown = 3.0 * time * depth * np.where(first, 1.5, 1.0)[:, None] * directions[labels[owner]]
            noise = np.random.default_rng([seed, layer]).normal(size=states[layer].shape)  # the same at every step
            states[layer] = types[token_ids] + 0.5 * common + depth * sentence[owner] + 0.3 * depth * noise + shown
        states[:, last] *= 5.0
        starts = np.cumsum(lengths) - lengths
        arrays = {"cls": states[:, first], "mean": np.add.reduceat(states, starts, axis=1) / lengths[None, :, None],
                  "tokens": states[:, of_kept],
                  "span": np.concatenate([states[:, starts + 1 + number] for number in range(spans)] or [states[:, :0]],
                                         axis=2)}
        wanted = ({"span"} if spans else set(vectors)) | ({"tokens"} if kept.any() else set())
        for kind, values in arrays.items():
            if kind not in wanted:
                continue
            values = values.astype(dtype)
            if damage and (kind, step) in damage:
                damage[kind, step](values)
            write_array(folder / step_name(step) / f"{kind}.npy", values)
    complete(folder, finished("hidden", layers=layers, dim=dim, spans=spans, steps=list(steps),
                              label_names=[f"class-{c}" for c in range(classes)]))
    return read_hidden(folder)


def finished(kind: str, **facts: Any) -> Manifest:
    """The manifest of a folder that the stage `kind` wrote."""
    return Manifest(kind=kind, stage=kind, name=NAME, key="0" * 64, settings={}, inputs={"outputs/x": "1" * 64},
                    seeds={}, facts=facts)


def hidden_stage(root: Path, lens: str, settings: Any, *, study: dict[str, Any] | None = None, **hidden: Any) -> Stage:
    """A stage `lens@NAME` in a project whose one trajectory has hidden states; call the script's `main` with it.

    settings: what the settings file says of that lens;  study: further sections {name: settings};  hidden: of
    `make_hidden`.
    """
    layout = Layout(root, root)
    make_hidden(layout.place(PLACE) / "hidden", **hidden)
    ask(root, lens, NAME, **of_run(PLACE),
        **{name: asdict(one) for name, one in ({lens: settings} | (study or {})).items()})
    return open_stage(lens, NAME, layout)


def stage_output(stage: Stage) -> Path:
    """The folder into which the stage of `hidden_stage` writes."""
    return stage.folder / stage.stage


def run_main(stage: Stage, *, figures: bool = False) -> None:
    """Run the script of a lens; without its figures, which cost the most and have their own tests."""
    def without(stage: Stage, folder: Path, manifest: Manifest, measure: Any, draw: Any, types: Any = ()) -> None:
        write_lens(stage, folder, manifest, measure, lambda record: {}, types)

    script = load_script(stage.stage.replace("-", "_"))
    with pytest.MonkeyPatch.context() as patch:
        if not figures:
            patch.setattr(script, "write_lens", without, raising=False)
        script.main(stage)


def check_redrawn(stage: Stage, out: Path, measuring: str) -> None:
    """Run a lens's stage, then again with other drawing code: the figures are drawn from the stored measurement, and
    equal (as sketches).

    out: the folder that it writes;  measuring: dotted name of a function without which nothing can be measured.
    """
    def content() -> Mapping[str, bytes]:
        return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError(f"{measuring} is called again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetrace.figures.style.to_png", sketch)
        run_main(stage, figures=True)
    before = content()
    shutil.rmtree(out)  # as DVC does before it runs a stage
    prints = stage.layout.settings / "code" / f"{stage.stage.replace('-', '_')}.json"
    prints.write_text(json.dumps(json.loads(prints.read_text()) | {"draw": "f" * 64}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finetrace.figures.style.to_png", sketch)
        patch.setattr(measuring, refuse)
        run_main(open_stage(stage.stage, stage.item, stage.layout), figures=True)
    after = content()
    assert any(name.endswith(".png") for name in after)
    told = {f"figures/{name}.json" for name in ("provenance", "cost")}
    assert {k: v for k, v in after.items() if k not in told} == {k: v for k, v in before.items() if k not in told}
    assert json.loads(after["figures/provenance.json"])["code"] == "f" * 64


def load_script(stage: str) -> Any:
    """A fresh module whose `main` takes a Stage: the stage of a lens, or pipelines/<stage>.py."""
    import importlib.util

    root = Path(__file__).resolve().parents[1]
    lens = root / "src/finetrace/lenses" / stage / "stage.py"
    path = lens if lens.is_file() else root / "pipelines" / f"{stage}.py"
    spec = importlib.util.spec_from_file_location(f"pipeline_{stage}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
