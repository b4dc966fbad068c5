"""Looks up a series of checkpoints that were made elsewhere: on the hub, in a folder, or a model of the study. Writes
where they lie and the SHA-256 of their weights; who needs weights opens them (`models.sources`)."""

import json
import logging
import re
import shutil
from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import Any

from finetrace.errors import FinetraceError
from finetrace.models.adapters import CONFIG as ADAPTER_CONFIG
from finetrace.models.fetch import FILES, describe
from finetrace.models.heads import head_of
from finetrace.models.hub import look_up, trouble
from finetrace.models.peft_folders import adapter_config
from finetrace.models.saved import FACTS as OWN_HEAD
from finetrace.models.sources import Local, Published, Source, label, needs_base, plain
from finetrace.models.timeline import AXES, FINE_TUNING, SERIES, TOKENIZER, weights_digest
from finetrace.store.checkpoints import list_weights
from finetrace.store.files import sha256_file, sha256_value
from finetrace.store.manifest import NAME, read_manifest

log = logging.getLogger(__name__)
STEP, GUESSED = "{step}", "checkpoint-{step}"
DECIDING = ("config.json", ADAPTER_CONFIG, OWN_HEAD, "model.safetensors.index.json")
"""Files beside the weights that decide what a checkpoint computes."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack")
OF_TRAINER = ("training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth")
VOCABULARIES = ("tokenizer.json", "vocab", "spiece", "spm", "sentencepiece")


def resolve_series(name: str, settings: Any, out: Path) -> dict[str, Any]:
    """Look a series up: write `out/series.json` and `out/tokenizer/`.

    settings: SeriesSettings; paths are relative to the current folder. Returns facts for the manifest. Raises
    FinetraceError when a checkpoint is missing, has no safetensors or is of another architecture than the others, and
    when two of the hub have equal weights: then one name shows another's checkpoint.
    """
    where = f"series.{name}"
    checkpoints = _from_folder(where, settings) if settings.path else (
        {0: local_source(where, Path("models") / settings.model)} if settings.model else _from_hub(where, settings))
    checkpoints = dict(sorted(checkpoints.items()))
    _tell_equal_weights(where, checkpoints)
    local = [source for source in checkpoints.values() if isinstance(source, Local)]
    heads = _heads(where, local) if local else {}
    last = checkpoints[max(checkpoints)]
    _put_tokenizer(where, settings, last, out / TOKENIZER)
    content = {str(step): plain(checkpoint) for step, checkpoint in checkpoints.items()}
    (out / SERIES).write_text(json.dumps({"schema_version": 1, "keep": settings.keep, "checkpoints": content}, indent=1)
                              + "\n")
    axis = FINE_TUNING if heads.get("head") in ("sequence", "token") else AXES["pretrain"]
    return {"checkpoints": len(checkpoints), "steps": list(checkpoints), "axis": axis, **heads}


def local_source(where: str, folder: Path, base: str = "", bases: dict[str, Source] | None = None) -> Local:
    """A checkpoint folder with the hashes of its files.

    where: of params.yaml, for messages;  base: the model that adapters change, by default what they name;  bases: bases
    that were looked up before. Raises FinetraceError for a folder without config or safetensors.
    """
    partial = needs_base(folder)
    if not partial and not (folder / "config.json").is_file() and (folder.parent.parent / "signals.parquet").is_file():
        raise FinetraceError(f"{where}: {folder} holds the weights of a model that is none of transformers, and has no "
                             "config.json, so that no study can load it; read the trace with finetrace.open")
    if not partial and not (folder / "config.json").is_file():
        raise FinetraceError(f"{where}: {folder} has no config.json; name a folder written by save_pretrained or the "
                             "Trainer")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = sorted(p.name for pattern in PICKLED for p in folder.glob(pattern) if p.name not in OF_TRAINER)
        shown = folder / pickled[0] if pickled else folder
        raise FinetraceError(f"{where}: {shown}: no safetensors; pickled weights are not loaded; save the checkpoint "
                             "again with save_pretrained of a recent transformers, which writes model.safetensors")
    files = [*weights, *(folder / name for name in DECIDING if (folder / name).is_file())]
    hashes = {file.name: sha256_file(file) for file in sorted(files)}
    return Local(folder.as_posix(), hashes, _base(where, folder, base, {} if bases is None else bases) if partial
                 else None)


def state_of(path: Path) -> str:
    """What tells one state of a folder from another: names, sizes and times of its files."""
    return sha256_value(sorted((p.relative_to(path).as_posix(), p.stat().st_size, p.stat().st_mtime_ns)
                               for p in path.rglob("*") if p.is_file()))


def _base(where: str, folder: Path, base: str, bases: dict[str, Source]) -> Source:
    """The model that adapters, or a lone head, belong to."""
    revision = "main"
    if not base and (folder / ADAPTER_CONFIG).is_file():
        config = adapter_config(folder)
        base, revision = str(config.get("base_model_name_or_path") or ""), str(config.get("revision") or "main")
    if not base:
        raise FinetraceError(f"{where}: {folder} does not tell which model it changes; name it in `base` (hub id or "
                             "folder)")
    if base not in bases:
        if Path(base).is_dir():
            bases[base] = local_source(where, Path(base))
        elif base.startswith((".", "/", "~")) or base.count("/") > 1:
            raise FinetraceError(f"{where}: {folder}: its base model {base} is no folder of this machine; name it in "
                                 "`base` (hub id or folder)")
        else:
            bases[base] = _look_up(where, base, revision)
    return bases[base]


def _from_folder(where: str, settings: Any) -> dict[int, Source]:
    """Step on the axis -> checkpoint of a folder: a recorded trajectory, a list of folders, or one model."""
    path = Path(settings.path)
    if not path.is_dir():
        raise FinetraceError(f"{where}: {path} is no folder; mend `path`, which is relative to the project folder")
    lists = [(phase.pattern, phase.steps, phase.after) for phase in settings.phases] or [
        (settings.pattern, settings.steps, None)]
    bases: dict[str, Source] = {}
    checkpoints: dict[int, Source] = {}
    for pattern, steps, after in lists:
        folders = _chosen(where, path, pattern or GUESSED, _listed(where, path, pattern), steps)
        begin = (max(checkpoints, default=0) if after is None else after)
        phase_folders = {begin + step * settings.unit: folder for step, folder in folders.items()}
        _require_after(where, pattern, phase_folders, checkpoints)
        checkpoints |= {step: local_source(where, folder, settings.base, bases)
                        for step, folder in phase_folders.items()}
    return checkpoints


def _listed(where: str, path: Path, pattern: str) -> dict[int, Path]:
    """Step -> folder of the checkpoints below `path` whose names fit a pattern."""
    if not pattern and (path / NAME).is_file() and read_manifest(path).kind == "trajectory":
        if weights := list_weights(path / "checkpoints"):
            return weights
        raise FinetraceError(f"{where}: {path} kept no weights; train with checkpoints such as log2, so that there is "
                             "something to look at")
    folders: dict[int, Path] = {}
    before, _, after = (pattern or GUESSED).partition(STEP)
    for folder in sorted(path.glob(f"{escape(before)}*{escape(after)}")):
        number = re.fullmatch(f"{re.escape(before)}(\\d+){re.escape(after)}", folder.relative_to(path).as_posix())
        if number is None or not folder.is_dir():
            continue
        step = int(number[1])
        if step in folders:
            raise FinetraceError(f"{where}: {folders[step]} and {folder} are both step {step}; remove or rename one")
        folders[step] = folder
    if not folders and not pattern and ((path / "config.json").is_file() or needs_base(path)):
        return {0: path}
    if not folders and (path / "unfinished").is_dir():
        raise FinetraceError(f"{where}: {path} is the trace of a training that has not ended; let the training go on, "
                             "or name another folder")
    if not folders:
        subfolders = sorted(p.name for p in path.iterdir() if p.is_dir())
        raise FinetraceError(f"{where}: nothing in {path} is called {pattern or GUESSED}; say in `pattern` how its "
                             f"checkpoints are called; there are {', '.join(subfolders[:5]) or 'no folders'}")
    return folders


def _chosen(where: str, path: Path, pattern: str, listed: Mapping[int, Path], steps: Any) -> dict[int, Path]:
    """The steps that are asked for, ascending; all by default."""
    if absent := sorted(set(steps or ()) - set(listed)):
        raise FinetraceError(f"{where}: {path} has no {pattern.replace(STEP, str(absent[0]))}; there are the steps "
                             f"{', '.join(map(str, sorted(listed)[:12]))}")
    return {step: listed[step] for step in sorted(steps or listed)}


def _from_hub(where: str, settings: Any) -> dict[int, Source]:
    """Step on the axis -> checkpoint of the hub."""
    lists = [(phase.revision, phase.steps, phase.after) for phase in settings.phases] or [
        (settings.revision, settings.steps, None)]
    checkpoints: dict[int, Source] = {}
    named: dict[str, str] = {}
    for revision, steps, after in lists:
        begin = max(checkpoints, default=0) if after is None else after
        phase_numbers = {begin + step * settings.unit: str(step) for step in steps}
        _require_after(where, revision, phase_numbers, checkpoints)
        for step, number in phase_numbers.items():
            names = settings.id.replace(STEP, number), revision.replace(STEP, number)
            checkpoints[step] = _look_up(where, *names)
            called, weights = f"{names[0]} at {names[1]}", weights_digest(checkpoints[step])
            if (other := named.setdefault(weights, called)) != called:
                raise FinetraceError(f"{where}: {called} has the same weights as {other}; one of the two names is "
                                     "wrong")
    return checkpoints


def _require_after(where: str, names: str, phase: Mapping[int, Any], before: Mapping[int, Any]) -> None:
    """Raises FinetraceError when a phase does not come after those before it."""
    if before and min(phase) <= max(before):
        raise FinetraceError(f"{where}: phases: {names} begins at step {min(phase):,} of the axis, where the phase "
                             f"before ends at {max(before):,}; leave its first step out, or say where it begins in "
                             "`after`")


def _tell_equal_weights(where: str, checkpoints: Mapping[int, Source]) -> None:
    """Remark on two folders with equal weights."""
    first_with: dict[str, Source] = {}
    for source in checkpoints.values():
        if (other := first_with.setdefault(weights_digest(source), source)) is not source:
            log.warning("%s: %s has the same weights as %s", where, label(source), label(other))


def _heads(where: str, checkpoints: list[Local]) -> dict[str, Any]:
    """Facts about the head that all checkpoints of a folder have; refuses checkpoints of several architectures."""
    first, first_facts = checkpoints[0], None
    for checkpoint in checkpoints:
        base = checkpoint.base if isinstance(checkpoint.base, Local) else None
        head = head_of(Path(checkpoint.path), Path(base.path) if base else None)
        model_folder = Path(base.path if base else checkpoint.path)
        facts = (head.kind, len(head.names), describe(model_folder) if (model_folder / "config.json").is_file() else {})
        first_facts = first_facts or facts
        if facts != first_facts:
            differences = ", ".join(f"{key}: {facts[2].get(key)}" for key in facts[2]
                                    if facts[2][key] != first_facts[2].get(key))
            raise FinetraceError(f"{where}: {checkpoint.path} is another kind of model than {first.path} "
                                 f"({differences or f'head: {head.kind}, {len(head.names)} classes'}); the checkpoints "
                                 "of a series belong to one training; move it elsewhere, or name the others in `steps`")
    head = head_of(Path(first.path))
    return {"head": head.kind, "classes": list(head.names)}


def _look_up(where: str, model_id: str, revision: str) -> Published:
    """Commit and digests of the weights of one hub model; fetches weights only where the hub does not tell their
    SHA-256."""
    from huggingface_hub import hf_hub_download

    try:
        repository = look_up(model_id, revision, digests=True)
        files = [file for file in repository.files if "/" not in file and file.endswith(".safetensors")]
        digests = {file: repository.sha256.get(file) or sha256_file(
            Path(hf_hub_download(model_id, file, revision=repository.commit)).resolve()) for file in files}
    except Exception as error:  # the hub client raises many kinds; each is named and passed on
        raise FinetraceError(f"{where}: {model_id} at revision {revision} could not be looked up: "
                             f"{trouble(error)}; mend id, revision or steps") from error
    if not files:
        raise FinetraceError(f"{where}: {model_id} at {revision} has no *.safetensors; pickled weights are not "
                             "loaded; name a revision with safetensors (often refs/pr/N)")
    return Published(model_id, repository.commit, digests)


def _put_tokenizer(where: str, settings: Any, last: Source, out: Path) -> None:
    """Copy the tokenizer of a series: the named one, that of the last checkpoint, of the folder around it, or of the
    base."""
    from finetrace.models.load import load_tokenizer

    out.mkdir()
    named = settings.tokenizer
    if named and Path(named).is_dir():
        places: list[Path] = [Path(named)]
    elif named:
        places = [_fetched_tokenizer(where, named, "main")]
    elif isinstance(last, Published):
        places = [_fetched_tokenizer(where, last.id, last.revision)]
    else:
        around = [Path(settings.path), Path(settings.path) / TOKENIZER] if settings.path else []
        places = [place for place in (Path(last.path), *around) if place.is_dir()]
        if isinstance(last.base, Local):
            places.append(Path(last.base.path))
        elif last.base is not None and not any(map(_has_vocabulary, places)):
            places.append(_fetched_tokenizer(where, last.base.id, last.base.revision))
    source = next(filter(_has_vocabulary, places), None)
    if source is None:
        raise FinetraceError(f"{where}: {label(last)} has no tokenizer; name the model whose it is in "
                             "`tokenizer` (hub id or folder)")
    for pattern in (p for p in FILES if "safetensors" not in p):
        for file in sorted(source.glob(pattern)):
            if file.is_file():
                shutil.copyfile(file.resolve(), out / file.name)
    load_tokenizer(out)


def _has_vocabulary(folder: Path) -> bool:
    return any(p.name.startswith(VOCABULARIES) or p.suffix == ".model" for p in folder.iterdir())


def _fetched_tokenizer(where: str, model_id: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [p for p in FILES if "safetensors" not in p]
    try:
        commit = look_up(model_id, revision).commit
        return Path(snapshot_download(model_id, revision=commit, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except Exception as error:  # as above
        raise FinetraceError(f"{where}: the tokenizer of {model_id} could not be fetched: {trouble(error)}; "
                             "name another in `tokenizer`") from error
