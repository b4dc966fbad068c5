"""Work of the stage edges: what is kept per checkpoint, task and part, and the computation of what is missing."""

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from finetrace import seeds
from finetrace.config.base import as_dict
from finetrace.errors import FinetraceError, blame
from finetrace.lenses.edges import control as controls
from finetrace.lenses.edges import recipe as recipes
from finetrace.lenses.edges.data import EdgeData
from finetrace.lenses.edges.mdl import online_code
from finetrace.lenses.edges.metrics import clean_classes, hits_of_decision, majority_decision
from finetrace.lenses.edges.network import Probe
from finetrace.lenses.edges.recipe import Recipe
from finetrace.lenses.edges.scoring import counting_type, score_probes
from finetrace.lenses.edges.settings import EdgeControlSettings, EdgeMdlSettings, EdgesSettings
from finetrace.lenses.edges.states import (
    PieceSplit,
    Texts,
    edge_layout,
    encode_texts,
    group_tasks,
    read_split,
    tokenise,
    with_states,
)
from finetrace.lenses.edges.training import Trained, train_probes
from finetrace.models.timeline import Timeline
from finetrace.pipeline.stage import Stage
from finetrace.progress import Progress, duration
from finetrace.store.arrays import read_array, write_array
from finetrace.store.files import atomic_folder, sha256_file, sha256_value
from finetrace.store.manifest import OF_MANIFEST, Manifest, complete, make_key, read_key
from finetrace.store.tables import write_table

log = logging.getLogger("finetrace")
NOT_TOKENIZER = (*OF_MANIFEST, "config.json")  # what else lies in a model folder beside weights
PARTS = ("probes", "control", "mdl")
SCORED = ("validation", "test")
REACHED = 0.5  # of what large matrix products reach, for the time that is told beforehand
SHARE = 0.5  # of a GPU's free memory that the states of one group of tasks may take
Item = tuple[int, str, str]
"""Step, task and part: probes, control or mdl."""
Tasks = dict[str, tuple[Path, dict[str, Any]]]
"""Name -> the task's folder and the facts of its manifest."""


@dataclass(frozen=True)
class Group:
    """Tasks whose sentences are encoded together. pieces, layouts: task -> split -> what probes need of it."""

    names: list[str]
    texts: Texts
    pieces: dict[str, dict[str, PieceSplit]]
    layouts: dict[str, dict[str, EdgeData]]


class Plan:
    """What is to be found, and where each result is kept.

    own: name of a task -> the seed of its probes, the same for all trajectories.
    """

    def __init__(self, stage: Stage, settings: EdgesSettings, recipe: Recipe, timeline: Timeline, tasks: Tasks,
                 task_seeds: dict[str, int]):
        self.stage, self.settings, self.recipe = stage, settings, recipe
        self.timeline, self.tasks, self.own = timeline, tasks, task_seeds
        self.keys = self._keys()

    def _keys(self) -> dict[Item, str]:
        files = [p for p in sorted(self.timeline.tokenizer.iterdir()) if p.is_file() and p.suffix != ".safetensors"]
        tokenizer = {p.name: sha256_file(p) for p in files if p.name not in NOT_TOKENIZER}
        settings: dict[str, Any] = as_dict(self.settings)
        shared = {name: settings[name] for name in
                  ("max_targets", "layers", "mixes", "seeds", "dtype", "precision", "max_length")}
        shared |= {"recipe": recipes.as_dict(self.recipe), "tokenizer": sha256_value(tokenizer)}
        code, keys = self.stage.code["measure"], dict[Item, str]()
        for task, (folder, _) in self.tasks.items():
            content = read_key(folder)
            for step in self.timeline.steps:
                for part in PARTS:
                    if not self._is_wanted(part, step):
                        continue
                    extra = {} if part == "probes" else settings[part] or {}
                    decides = {**shared, part: {k: v for k, v in extra.items() if k != "checkpoints"},
                               "seed": self.own[task]}
                    inputs = {"checkpoint": self.timeline.digest(step), "task": content}
                    keys[step, task, part] = make_key(f"edges-{part}", decides, inputs, code)
        return keys

    def _is_wanted(self, part: str, step: int) -> bool:
        if part == "probes":
            return True
        settings, steps = getattr(self.settings, part), self.timeline.steps
        return settings is not None and (settings.checkpoints == "all" or step in (steps[0], steps[-1]))

    def result(self, step: int, task: str, part: str) -> Path:
        """The folder of one result."""
        return self.stage.layout.results("edges", self.keys[step, task, part])

    def missing(self) -> list[Item]:
        """What has no result yet; equal work, of equal checkpoints, stands once."""
        missing: dict[str, Item] = {}
        for item, key in self.keys.items():
            if not (self.result(*item) / "manifest.json").is_file():
                missing.setdefault(key, item)
        return list(missing.values())


class Work:
    """Computes results, checkpoint by checkpoint and group of tasks by group; each is kept as soon as it is there.

    scratch: folder for states, which are removed at the end.
    """

    def __init__(self, plan: Plan, missing: list[Item], scratch: Path):
        import torch

        self.plan, self.missing, self.scratch = plan, missing, scratch
        self.stage, self.settings, self.recipe = plan.stage, plan.settings, plan.recipe
        self.groups, self.part = list[Group](), ""
        self.progress = Progress(len(missing), self.stage.label, unit="result")
        self.tokenizer: Any = None
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    def run(self) -> None:
        """Compute all that is missing."""
        from finetrace.models.device import fit_threads, set_up
        from finetrace.models.saved import load_trained_encoder

        timeline = self.plan.timeline
        for step in timeline.steps:
            step_items = [entry for entry in self.missing if entry[0] == step]
            if not step_items:
                continue
            with timeline.checkpoint(step) as folder:
                encoder = load_trained_encoder(folder, timeline.base)
                (set_up if self.device == "cuda" else fit_threads)(encoder.num_parameters())
                encoder = encoder.to(self.device).requires_grad_(False)
                for group in self.groups or self._tokenise(encoder):
                    group_items = [item for item in step_items if item[1] in group.names]
                    if group_items:
                        try:
                            with self._states(encoder, group, step) as states:
                                for item in group_items:
                                    self._compute(item, group, *states)
                        except FinetraceError as error:
                            where = self.stage.layout.relative(timeline.trajectory)
                            raise FinetraceError(f"step {step} of {where}: {error}") from error
        self.progress.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _tokenise(self, encoder: Any) -> list[Group]:
        """The groups of tasks that are encoded together, tokenised once for all checkpoints."""
        from finetrace.models.load import forward_names, load_tokenizer, longest_input

        self.tokenizer = load_tokenizer(self.plan.timeline.tokenizer)
        length, tables = longest_input(encoder, self.tokenizer, self.settings.max_length), {}
        for name, (folder, facts) in self.plan.tasks.items():
            caps, seed = self.settings.max_targets or {}, self.plan.own[name]
            tables[name] = {split: read_split(folder / f"{split}.parquet", facts["label_names"], caps.get(split, 0),
                                              seeds.derive(seed, split))
                            for split in ("train", *SCORED) if (folder / f"{split}.parquet").is_file()}
            if "train" not in tables[name]:
                raise FinetraceError(f"{folder}: has no training split; give the task one (`splits`)")
        needed = {task for _, task, _ in self.missing}
        for names in group_tasks(tables):
            if needed & set(names):  # whole groups: states do not depend on which results are missing
                texts, pieces = tokenise({name: tables[name] for name in names}, self.tokenizer, length,
                                         forward_names(encoder))
                layouts = {name: {split: edge_layout(part, texts) for split, part in pieces[name].items()}
                           for name in names}
                self.groups.append(Group(names, texts, pieces, layouts))
                self._tell_cost(encoder, self.groups[-1])
        return self.groups

    def _tell_cost(self, encoder: Any, group: Group) -> None:
        """One line on what is about to be done, before it is; an error where the disk is too small."""
        import torch

        from finetrace.models.device import operations_per_second
        from finetrace.models.families import layer_count

        layers, dim, names = layer_count(encoder.config), encoder.config.hidden_size, ", ".join(group.names)
        size = layers * group.texts.tokens * dim * np.dtype(self.settings.dtype).itemsize
        self.scratch.mkdir(parents=True, exist_ok=True)
        if size > shutil.disk_usage(self.scratch).free:
            raise FinetraceError(f"edges: the states of {names} need {size / 1e9:.1f} GB of disk per checkpoint, more "
                                 "than is free; lower edges.max_targets, or set edges.dtype: float16")
        operations, probes, hidden = 0.0, len(self._probes(layers)), self.recipe.hidden or dim
        for name in group.names:
            train, steps = group.pieces[name]["train"], len({step for step, task, _ in self.missing if task == name})
            targets = len(train.gold) * min(1.0, self.recipe.batch_sentences / len(train.texts))
            flops = (6 * targets + 8) * train.spans.shape[1] * dim * hidden
            operations += steps * probes * self.recipe.steps(len(train.texts)) * flops
        cost = ""
        if self.device == "cpu":
            seconds = operations / (REACHED * operations_per_second())
            cost = f"; training about {duration(seconds)} on {torch.get_num_threads()} core(s)"
        log.info("%s: %s: %s sentences, %s tokens kept, %.0f MB per checkpoint; %d probes of %s targets%s",
                 self.stage.label, names, f"{len(group.texts.rows):,}", f"{group.texts.tokens:,}", size / 1e6, probes,
                 " + ".join(f"{len(group.pieces[name]['train'].gold):,}" for name in group.names), cost)
        for name in group.names:
            if dropped := [f"{part.dropped} {split}" for split, part in group.pieces[name].items() if part.dropped]:
                log.warning("%s: %s: targets beyond edges.max_length dropped: %s", self.stage.label, name,
                            ", ".join(dropped))

    @contextlib.contextmanager
    def _states(self, encoder: Any, group: Group, step: int) -> Iterator[tuple[Any, np.ndarray]]:
        """States and moments of one group at one checkpoint; the file is removed at the end."""
        import torch

        from finetrace.models.precision import bf16_of
        from finetrace.models.rows import Collator

        self.scratch.mkdir(parents=True, exist_ok=True)
        path, count = self.scratch / "states.npy", len(group.texts.rows)
        bf16 = bf16_of(encoder, self.settings.precision)
        collator = Collator(self.tokenizer, 8 if self.device == "cuda" else None, side="right")
        try:
            moments = encode_texts(encoder, group.texts, collator, path, dtype=self.settings.dtype,
                                   batch_tokens=self.settings.batch_tokens, bf16=bf16,
                                   on_batch=lambda n: self._tell(f"step {step}: {n} of {count} sentences encoded"))
            states: Any = read_array(path)
            if self.device == "cuda" and states.nbytes < SHARE * torch.cuda.mem_get_info()[0]:
                states = torch.from_numpy(np.array(states)).cuda()
            yield states, moments
        finally:
            path.unlink(missing_ok=True)

    def _tell(self, note: str) -> None:
        self.progress.update(self.progress.done, note)

    def _probes(self, layers: int, single: bool = False) -> list[Probe]:
        """The probes that are asked for; single: of single layers only."""
        chosen = self.settings.layers
        for layer in chosen if isinstance(chosen, list) else ():
            if not -layers <= layer < layers:
                raise FinetraceError(f"params.yaml: edges.layers: {layer} does not exist; the model has layers 0 "
                                     f"(embeddings) to {layers - 1}")
        single_layers = list(range(layers)) if chosen == "all" else sorted({layer % layers for layer in chosen})
        mixes = {"all": list(range(layers)), "full": [layers - 1], "none": []}[self.settings.mixes]
        repeats = range(self.settings.seeds)
        return [*(Probe("layer", k, seed) for k in single_layers for seed in repeats),
                *(Probe("mix", k, seed) for k in ([] if single else mixes) for seed in repeats)]

    def _compute(self, item: Item, group: Group, states: Any, moments: np.ndarray) -> None:
        """One result, from beginning to end."""
        from finetrace.models.device import device_name

        step, task, part = item
        pieces = group.pieces[task]
        data = {split: with_states(layout, pieces[split], states, moments)
                for split, layout in group.layouts[task].items()}
        started, seed = time.time(), self.plan.own[task]
        manifest = Manifest(kind="result", stage="edges", name=task, key=self.plan.keys[item], settings={}, inputs={},
                            seeds={"edges": seed}, device=device_name(), code=self.stage.code["measure"])
        self.part = f"step {step}: {task}" + ("" if part == "probes" else f", {part}")
        with atomic_folder(self.plan.result(*item)) as out:
            with blame(f"edges, {task}"):
                manifest.facts = {"probes": self._train, "control": self._control, "mdl": self._mdl}[part](
                    out, task, data, pieces, seed)
            complete(out, manifest, started=started)
        self.progress.advance(self.part)

    def _fit(self, data: dict[str, EdgeData], probes: list[Probe], seed: int) -> list[Trained]:
        return train_probes(data["train"], data["validation"], probes, self.recipe, seed=seed, device=self.device,
                            memory_mib=self.settings.memory_mib,
                            progress=lambda n, total: self._tell(f"{self.part}: {n} of {total} steps"))

    def _hits(self, out: Path, data: dict[str, EdgeData], trained: list[Trained],
              clean: np.ndarray | None = None) -> None:
        """Score the splits and write what was decided, the counts of all repetitions added up."""
        repeats = self.settings.seeds
        kind = counting_type(repeats * data["train"].gold.shape[1])
        for split in SCORED:
            if split in data:
                scored = score_probes(trained, data[split], self.recipe, clean=clean, device=self.device)
                for name, values in {"hits": scored.hits, "clean": scored.clean, "right": scored.right}.items():
                    if values is not None:
                        grouped = values.reshape(-1, repeats, *values.shape[1:]).sum(axis=1, dtype=kind)
                        write_array(out / f"{split}-{name}.npy", grouped)

    def _train(self, out: Path, task: str, data: dict[str, EdgeData], pieces: dict[str, PieceSplit],
               seed: int) -> dict[str, Any]:
        """The part probes."""
        facts = self.plan.tasks[task][1]
        probes = self._probes(len(data["train"].states))
        trained = self._fit(data, probes, seed)
        clean = clean_classes(facts["label_names"])
        self._hits(out, data, trained, clean and clean[0])
        looks = [{"probe": result.probe.name, "kept": result.step, **vars(look)} for result in trained
                 for look in result.looks]
        columns = ("probe", "kept", "step", "f1", "loss", "rate")
        write_table(out / "looks.parquet", {name: [look[name] for look in looks] for name in columns})
        last = len(data["train"].states) - 1
        full = [result for result in trained if result.probe.readout == "mix" and result.probe.layer == last]
        weights = [result.weights for result in full if result.weights is not None]
        decided = majority_decision(data["train"].gold, bool(facts.get("multi_label")))
        for split in SCORED:
            if split in pieces:
                write_table(out / f"{split}-targets.parquet", {"example_id": pieces[split].example_ids,
                                                               "sentence": pieces[split].sentences})
        return {"readouts": list(dict.fromkeys((probe.readout, probe.layer) for probe in probes)), "layers": last + 1,
                "weights": np.mean(weights, axis=0).tolist() if full else None,
                "gamma": float(np.mean([result.parameters["gamma"] for result in full])) if full else None,
                "majority": {split: hits_of_decision(decided, data[split].gold).sum(axis=0).tolist()
                             for split in pieces},
                "clean": clean and clean[1],
                "tokens": {split: len(split_data.tokens) for split, split_data in data.items()},
                "targets": {split: len(split_pieces.gold) for split, split_pieces in pieces.items()},
                "sentences": {split: len(split_pieces.texts) for split, split_pieces in pieces.items()},
                "dropped": {split: split_pieces.dropped for split, split_pieces in pieces.items()}}

    def _control(self, out: Path, task: str, data: dict[str, EdgeData], pieces: dict[str, PieceSplit], seed: int,
                 ) -> dict[str, Any]:
        """The part control."""
        settings = self.settings.control or EdgeControlSettings()
        types = {split: ["\t".join(names[:1] if settings.key == "first" else names).lower() for names in split_of.names]
                 for split, split_of in pieces.items()}
        gold = controls.control_gold(types, data["train"].gold, seed, settings.labels)
        data = {split: replace(split_data, gold=gold[split]) for split, split_data in data.items()}
        self._hits(out, data, self._fit(data, self._probes(len(data["train"].states), single=True), seed))
        return {"ceiling": {split: controls.ceiling(types["train"], names) for split, names in types.items()}}

    def _mdl(self, out: Path, task: str, data: dict[str, EdgeData], pieces: dict[str, PieceSplit],
             seed: int) -> dict[str, Any]:
        """The part mdl."""
        settings = self.settings.mdl or EdgeMdlSettings()
        probes = [probe for probe in self._probes(len(data["train"].states), single=True) if not probe.seed]
        code = online_code(data["train"], data["validation"], probes, self.recipe, seed=seed,
                           fractions=settings.fractions, memory_mib=self.settings.memory_mib, device=self.device)
        targets = len(data["train"].gold)
        return {"mdl": [[probe.layer, bits / targets, compression] for probe, bits, compression in zip(
            probes, code.bits.tolist(), code.compression.tolist(), strict=True)], "targets": targets}
