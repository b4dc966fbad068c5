"""The hidden states of one trajectory: the same examples, tokenised once, through each of its checkpoints."""

import json
import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from finetrace.config.hidden import HiddenSettings
from finetrace.errors import FinetraceError
from finetrace.inference.choose import choose_rows
from finetrace.inference.extract import extract
from finetrace.inference.targets import target_of
from finetrace.models.device import device_name, fit_threads, set_up
from finetrace.models.families import family_of, layer_count, sentence_position
from finetrace.models.given import load_trained_encoder
from finetrace.models.load import forward_names, load_tokenizer, longest_input
from finetrace.models.precision import bf16_of
from finetrace.models.rows import Collator, Encoded, encode, joined
from finetrace.models.timeline import kept_checkpoints
from finetrace.progress import Progress
from finetrace.store.hidden import step_name
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table, write_table
from finetrace.store.whole import hand_over, is_whole, whole_folder

log = logging.getLogger(__name__)
ARCHITECTURE = ("model_type", "hidden_size", "dim", "emb_dim", "num_hidden_layers", "n_layers", "vocab_size")


def extract_trajectory(trajectory: Path, model_folder: Path, task_folder: Path, settings: HiddenSettings,
                       max_length: int, seed: int, *, scratch: Path, out: Path, name: str,
                       pieces: Literal["mean", "first"] = "mean") -> dict[str, Any]:
    """Write index.parquet, tokens.parquet and step-*/{cls,mean,span,tokens}.npy of a
    finished trajectory into the folder `out`.

    max_length: longest input in tokens;  seed: of the choice of examples;  pieces: what a word's vector is made of;
    scratch: where finished checkpoints wait, so that a killed extraction continues after the last of them. Returns
    facts for the manifest. Raises FinetraceError when checkpoints are missing or of different architectures, when the
    disk is too small, or when a hidden state is not finite.
    """
    import torch

    checkpoints = kept_checkpoints(trajectory, settings.checkpoints, "hidden.checkpoints")
    check_architecture([model_folder, *checkpoints.values()])
    tokenizer = load_tokenizer(model_folder)
    model = load_trained_encoder(next(iter(checkpoints.values())), model_folder)
    cuda = torch.cuda.is_available()
    (set_up if cuda else fit_threads)(model.num_parameters())
    length = longest_input(model, tokenizer, max_length)
    rows, splits, tokens_kept = chosen_examples(task_folder, settings, seed, tokenizer, length, forward_names(model))
    lengths = rows.lengths * tokens_kept
    offsets = np.where(tokens_kept, np.cumsum(lengths) - lengths, -1)
    layers, dim = layer_count(model.config), model.config.hidden_size
    spans = rows.targets.pieces.shape[1] if rows.targets else 0
    size = len(checkpoints) * layers * dim * ((spans or len(settings.vectors)) * len(rows.labels) + int(lengths.sum()))
    size *= np.dtype(settings.dtype).itemsize
    log.info("%s: %d checkpoints x %d examples (%s tokens), %d layers x %d: %.0f MB on disk", name, len(checkpoints),
             len(rows.labels), f"{int(rows.lengths.sum()):,}", layers, dim, size / 1e6)
    if size > shutil.disk_usage(scratch.parent if scratch.parent.exists() else Path.cwd()).free:
        raise FinetraceError(f"hidden: needs {size / 1e9:.1f} GB of disk for {name}, more than is free; lower "
                             "hidden.rows or token_rows, name fewer hidden.checkpoints, or set hidden.dtype: float16")
    bf16 = bf16_of(model, settings.precision)
    # padding must not move absolute positions
    collator = Collator(tokenizer, 8 if cuda else None, side="right", pieces=pieces)
    progress = Progress(len(checkpoints) * len(rows), name)
    for number, (step, folder) in enumerate(checkpoints.items()):
        if is_whole(scratch / step_name(step)):
            continue
        encoder = (model if number == 0 else load_trained_encoder(folder, model_folder)).to("cuda" if cuda else "cpu")
        with whole_folder(scratch / step_name(step)) as temporary:
            try:
                extract(encoder, rows, collator, temporary, vectors=list(settings.vectors), offsets=offsets,
                        dtype=settings.dtype, batch_tokens=settings.batch_tokens, bf16=bf16,
                        on_batch=partial(_tell, progress, number * len(rows)))
            except FinetraceError as error:
                raise FinetraceError(f"{folder}: {error}") from error
    progress.close()
    for step in checkpoints:
        hand_over(scratch / step_name(step), out / step_name(step))
    _write_index(rows, splits, offsets, tokens_kept, out)
    facts = read_manifest(task_folder).facts
    return {"device": device_name(), "layers": layers, "dim": dim, "spans": spans, "steps": list(checkpoints),
            "label_names": facts["label_names"], **({"target": facts["target"]} if "target" in facts else {}),
            "task": task_folder.name, "model_type": model.config.model_type,
            "sentence": sentence_position(model.config),
            "sentence_token": family_of(model.config).token, "final_norm": family_of(model.config).final_norm,
            "max_length": length, "truncated": rows.told(tokenizer)["rows_cut"], "tokens": int(rows.lengths.sum()),
            "rows": {s: splits.count(s) for s in dict.fromkeys(splits)}}


def _write_index(rows: Encoded, splits: list[str], offsets: np.ndarray, tokens_kept: np.ndarray, out: Path) -> None:
    """index.parquet and tokens.parquet: what the examples and the kept tokens are, in the order of the states."""
    owner = np.repeat(np.arange(len(rows)), rows.sizes)
    first = np.concatenate([[True], owner[1:] != owner[:-1]])  # a sentence's tokens belong to its first example
    write_table(out / "index.parquet", {
        "split": splits, "example_id": rows.example_ids, "label": _recorded(rows.labels),
        "sentence": rows.targets.numbers[owner] if rows.targets else rows.example_ids,
        "length": rows.lengths[owner], "token_offset": np.where(first, offsets[owner], -1)})
    write_table(out / "tokens.parquet", _token_table(rows, np.flatnonzero(tokens_kept)))


def _recorded(labels: np.ndarray) -> np.ndarray:
    """(example,) labels as the index has them: classes int32, scores float32, -1 where examples have several."""
    if labels.ndim == 2:
        return np.full(len(labels), -1, dtype=np.int32)
    return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int32)


def _tell(progress: Progress, before: int, done: int) -> None:
    progress.update(before + done)


def check_architecture(folders: list[Path]) -> None:
    """Raises FinetraceError when a checkpoint is of another architecture than the model folder, which comes first."""
    first: dict[str, Any] = {}
    for folder in folders:
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
        except (FileNotFoundError, ValueError) as error:
            raise FinetraceError(f"{folder}: its config.json cannot be read ({error}); run its stage again") from error
        architecture = {key: config[key] for key in ARCHITECTURE if key in config}
        first = first or architecture
        if wrong := [key for key in first if architecture.get(key) != first[key]]:
            raise FinetraceError(f"{folder}: is another architecture than {folders[0]}: {wrong[0]} is "
                                 f"{architecture.get(wrong[0])} instead of {first[wrong[0]]}; train again, so that all "
                                 "checkpoints come from one model")


def chosen_examples(task_folder: Path, settings: HiddenSettings, seed: int, tokenizer: Any, max_length: int,
                    inputs: set[str]) -> tuple[Encoded, list[str], np.ndarray]:
    """The chosen examples of all splits, tokenised: rows, split of each example,
    and (row,) bool whether its tokens are kept."""
    from finetrace import seeds

    parts, splits, masks = [], [], []
    target = target_of(read_manifest(task_folder).facts)
    class_count = len(target.label_names) if target.kind == "multi-label" else 0
    # tasks differ in their splits
    splits_there = [split for split in settings.rows if (task_folder / f"{split}.parquet").is_file()]
    if not splits_there:
        raise FinetraceError(f"hidden.rows: {task_folder.name} has none of {', '.join(settings.rows)}; it has "
                             f"{', '.join(sorted(p.stem for p in task_folder.glob('*.parquet')))}")
    for split in splits_there:
        path, count = task_folder / f"{split}.parquet", settings.rows[split]
        labels = read_table(path, ["label"])["label"].to_numpy()
        labels = labels if target.kind == "class" else np.zeros(len(labels), dtype=np.int64)  # none to stratify by
        chosen = choose_rows(labels, count, settings.choose, seeds.derive(seed, split))
        part = encode(path, tokenizer, max_length, inputs | {"attention_mask"}, rows=chosen, special=True,
                      classes=class_count)
        mask = np.zeros(len(part), dtype=bool)
        if split in settings.token_rows:
            tokens_seed = seeds.derive(seed, split, "tokens")
            # a sentence has no class of its own
            without_labels = part.targets or target.kind != "class"
            classes = np.zeros(len(part), dtype=np.int64) if without_labels else part.labels
            mask[choose_rows(classes, settings.token_rows[split], settings.choose, tokens_seed)] = True
        parts.append(part)
        splits += [split] * len(part.labels)
        masks.append(mask)
    return joined(parts), splits, np.concatenate(masks)


def _token_table(rows: Encoded, token_rows: np.ndarray) -> dict[str, Any]:
    """row, position, token_id, special of every kept token, in the order of tokens.npy."""
    lists = [(int(rows.examples([r])[0]), p, t, bool(s)) for r in token_rows
             for p, (t, s) in enumerate(zip(rows.features["input_ids"][r], (rows.special or [])[r], strict=True))]
    columns = list(zip(*lists, strict=True)) if lists else [(), (), (), ()]
    types = (pa.int64(), pa.int32(), pa.int64(), pa.bool_())
    return {n: pa.array(c, t) for n, c, t in zip(("row", "position", "token_id", "special"), columns, types,
                                                 strict=True)}
