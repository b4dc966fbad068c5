"""python pipelines/kernel.py TRAJECTORY -- neural tangent kernel at its checkpoints, and what it predicts -> .../sSEED/kernel/"""

import logging
import os
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finetrace import seeds
from finetrace.config import as_dict
from finetrace.errors import FinetraceError
from finetrace.stage import Stage, run, write_curves, write_figures
from finetrace.store.arrays import write_array
from finetrace.store.files import write_json
from finetrace.store.hidden import step_name
from finetrace.store.manifest import read_manifest
from finetrace.store.tables import read_table, write_table

log = logging.getLogger("finetrace")
ROOMS = ("lenses/kernel", "lenses/intervals.py", "models", "hidden/choose.py")
PARAMETERS = {"trained": "trainable"}  # a checkpoint is loaded with gradients required of what its method trains
SETTLED = 5e-6  # seconds per squared row of a kernel: fitting the models of one checkpoint
COPIES = 10  # kernels held at once: parts, their sum, the looks before, what solvers need
GROUPS = 100  # and those of the groups of two looks


@dataclass(frozen=True)
class Examples:
    """The chosen examples of one split. batches: inputs with labels;  labels: (example,) in the order of the batches."""

    batches: list[dict[str, Any]]
    labels: np.ndarray


def main(stage: Stage) -> None:
    from finetrace.lenses.kernel import statistics, summary

    item = stage.pick("trajectories", stage.study.trajectories)
    folder = stage.layout.run(item.model, item.task, item.method, item.seed)
    model_folder, task_folder = stage.layout.model(item.model), stage.layout.task(item.task)
    settings, trajectory = stage.study.kernel, folder / "trajectory"
    of_training = read_manifest(trajectory)
    checkpoints = _checkpoints(trajectory, settings.checkpoints)
    seed = seeds.derive(stage.study.study.seed, "kernel", item.task)  # all trajectories of a task look at the same examples
    manifest = stage.manifest("lens", as_dict(settings), {trajectory: trajectory, model_folder: model_folder,
                                                          task_folder: task_folder}, {"kernel": seed}, rooms=ROOMS)
    train, other, told = _examples(checkpoints, model_folder, task_folder, settings, of_training.settings["train"], seed)
    steps, names = list(checkpoints), read_manifest(task_folder).facts["label_names"]
    _announce(stage, settings, steps, train, other, len(names), of_training.facts.get("method_kind", "ft"))
    rows, found, blocks, first, before, not_converged = [], [], {}, None, None, 0
    with stage.output(folder / "kernel", manifest) as out:
        (out / "kernels").mkdir()
        for step, checkpoint in checkpoints.items():
            look = _look(stage, step, checkpoint, model_folder, train, other, settings, tell=first is None)
            first = first or replace(look, eval={}, groups={})
            rows += summary.statistic_rows(look, train.labels, tolerance=settings.rank_tolerance, seed=seed)
            rows += summary.motion_rows(first, before, look)
            if settings.solver != "none":
                found = _models(stage, look, (before, found) if before else None, train, other, settings, seed)
                rows += found
                not_converged += sum(row["statistic"] == "model_converged" and not row["value"] for row in found)
            if step in (steps[0], steps[-1]):
                blocks[step] = {part: statistics.block_nuclear_norms(look.train[part]) for part in summary.PARTS[:2]}
            if settings.keep:
                for part in summary.PARTS[:2]:
                    values = [look.train[part], *([look.eval[part]] if look.eval else [])]
                    write_array(out / "kernels" / step_name(step) / f"{part}.npy", np.concatenate(values).astype(np.float32))
            before = look
        if not_converged:
            log.warning("%s: %d kernel models ended before they converged", stage.label, not_converged)
        table = summary.table(rows)
        write_table(out / "table.parquet", table)
        write_json(out / "metrics.json", summary.metrics(table, steps))
        write_curves(out / "curves.csv", summary.curves(table, steps))
        write_figures(out / "figures", _figures(stage.item, table, steps, blocks, train.labels, other.labels, names,
                                                settings))
        manifest.facts = {"steps": steps, "label_names": names, "rows": {"train": len(train.labels), "eval": len(other.labels)},
                          "method_kind": of_training.facts.get("method_kind", "ft"), "not_converged": not_converged, **told}


def _checkpoints(trajectory, wanted):
    """Step -> folder, ascending; listed steps beyond the last are left out, the ends always in."""
    from finetrace.models.timeline import chosen_steps
    from finetrace.store.checkpoints import list_weights

    recorded = list_weights(trajectory / "checkpoints")
    return {step: recorded[step] for step in chosen_steps(list(recorded), wanted, trajectory, "params.yaml: kernel.checkpoints")}


def _examples(checkpoints, model_folder, task_folder, settings, train, seed):
    """The chosen examples of the train and the eval split, and facts about them."""
    from finetrace.models.load import forward_names, load_tokenizer, longest_input
    from finetrace.models.rows import Collator, encode
    from finetrace.models.saved import load_trained

    tokenizer = load_tokenizer(model_folder)
    model = load_trained(next(iter(checkpoints.values())), base=model_folder)
    length = longest_input(model, tokenizer, settings.max_length or train["max_length"])
    collator = Collator(tokenizer, side="right", pieces=train["pieces"])
    found, truncated = [], 0
    for split, count in (("train", settings.rows["train"]), (settings.eval_split, settings.rows["eval"])):
        path = task_folder / f"{split}.parquet"
        if found and count == 0:
            found.append(Examples([], np.empty(0, dtype=np.int64)))
            continue
        if not path.is_file():
            raise FinetraceError(f"{task_folder.name} has no split {split!r}; set kernel.eval_split to another one, or "
                                 "kernel.rows.eval: 0")
        labels = read_table(path, ["label"])["label"].to_numpy()
        rows = encode(path, tokenizer, length, forward_names(model) | {"attention_mask"},
                      rows=_choose(labels, count, settings.choose, seeds.derive(seed, split)))
        found.append(_batched(rows, collator, settings.batch_tokens))
        truncated += int((rows.lengths >= length).sum())
    return *found, {"max_length": length, "truncated": truncated}


def _choose(labels, count, how, seed):
    from finetrace.hidden.choose import choose_rows

    return choose_rows(labels, count, how, seed)


def _batched(rows, collator, batch_tokens) -> Examples:
    from finetrace.models.rows import batches_by_tokens

    index = list(batches_by_tokens(rows.lengths, batch_tokens))
    return Examples([collator(rows, one) for one in index], np.concatenate([rows.labels[rows.examples(one)] for one in index]))


def _announce(stage, settings, steps, train, other, classes, kind) -> None:
    """What is about to be computed and what it takes; an error where memory cannot hold the kernels."""
    columns = len(train.labels) * classes
    one = (len(train.labels) + len(other.labels)) * classes * columns * 8
    log.info("%s: %d checkpoints, kernels of %d + %d examples x %d classes (%.0f MB each), gradients of %s (%s), solver %s "
             "(about %.0f s per checkpoint, besides the kernel)", stage.label, len(steps), len(train.labels), len(other.labels),
             classes, one / 1e6, settings.parameters, kind, settings.solver,
             0 if settings.solver == "none" else 3 * SETTLED * columns ** 2)
    if kind == "lp" and settings.parameters == "trained":
        log.info("%s: linear probing trains the head only; where that is one linear layer, the FT-effective part is zero",
                 stage.label)
    needed = COPIES * one + (GROUPS * columns ** 2 * 8 if settings.groups else 0)
    has = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > has:
        raise FinetraceError(f"params.yaml: kernel.rows: kernels of {columns:,} rows need about {needed / 1e9:.0f} GB, this "
                             f"machine has {has / 1e9:.0f}; lower kernel.rows.train (now {len(train.labels)}) or set "
                             "kernel.groups: false")


def _look(stage, step, checkpoint, model_folder, train, other, settings, tell):
    """The kernels and logits of one checkpoint. tell: log beforehand what a kernel takes."""
    import torch

    from finetrace.lenses.kernel import estimate, ntk, summary
    from finetrace.models.device import fit_threads, set_up
    from finetrace.models.saved import load_trained

    started = time.monotonic()
    model = load_trained(checkpoint, base=model_folder)
    cuda = torch.cuda.is_available()
    (set_up if cuda else fit_threads)(model.num_parameters())
    model.to("cuda" if cuda else "cpu")
    common = {"parameters": PARAMETERS.get(settings.parameters, settings.parameters), "dtype": getattr(torch, settings.dtype),
              "memory_bytes": settings.memory_gb * 1e9}
    try:
        if tell:
            cost = estimate(model, train.batches, other.batches, **common)
            log.info("%s: a kernel takes about %.0f s, %.1f GB and %d passes over the examples", stage.label, cost.seconds,
                     cost.bytes / 1e9, cost.passes)
        kernel = ntk(model, train.batches, other.batches, formula=settings.formula, groups=settings.groups,
                     progress=_progress(f"{stage.label} step {step:,}"), **common)
    except ValueError as error:
        raise FinetraceError(f"{checkpoint}: its kernel could not be computed (params.yaml: kernel): {error}") from error
    of_train, of_eval = kernel.rows("train"), kernel.rows("eval") if other.batches else None
    log.info("%s: step %d: kernel in %.1f s", stage.label, step, time.monotonic() - started)
    return summary.Look(
        step, _parts(of_train), _parts(of_eval) if of_eval else {}, {g: v.copy() for g, v in of_train.groups.items()},
        _logits(model, train), _logits(model, other), _parts(of_train.flipped) if of_train.flipped else {},
        _parts(of_eval.flipped) if of_eval and of_eval.flipped else {})


def _parts(kernel):
    from finetrace.lenses.kernel import summary

    return summary.parts(kernel.pretrain_effective, kernel.ft_effective)


def _logits(model, examples):
    """(example, class) float32."""
    import torch

    device = next(model.parameters()).device
    with torch.no_grad():
        found = [model(**{k: v.to(device) for k, v in batch.items() if k != "labels"}).logits.cpu().numpy()
                 for batch in examples.batches]
    return np.concatenate(found) if found else np.empty((0, 0))


def _models(stage, look, before, train, other, settings, seed):
    from finetrace.lenses.kernel import summary

    try:
        return summary.model_rows(look, train.labels, other.labels, before=before, adjust=settings.adjust_for_init,
                                  f0_scaling=settings.f0_scaling, solver=settings.solver, normalise=settings.normalise,
                                  regularization=settings.regularization, parity=settings.parity, folds=settings.folds,
                                  gamma=settings.gamma, seed=seed)
    except ValueError as error:
        raise FinetraceError(f"params.yaml: kernel, for {stage.item} at step {look.step}: {error}") from error


def _progress(label):
    """Logs at most one line in half a minute."""
    last = [time.monotonic()]

    def tell(phase, done, total) -> None:
        if time.monotonic() - last[0] > 30:
            last[0] = time.monotonic()
            log.info("%s: %s %d of %d", label, phase, done, total)

    return tell


def _majority(labels, truth):
    """Accuracy of always saying the class that is most frequent in training."""
    return float((truth == np.bincount(labels).argmax()).mean())


def _figures(name, table, steps, blocks, labels, other_labels, names, settings):
    from finetrace.figures import kernel as figures
    from finetrace.lenses.kernel import summary

    def over(statistic, parts=summary.PARTS):
        return {part: summary.course(table, steps, part, statistic) for part in parts}

    ends = {f"step {step:,}": step for step in dict.fromkeys((steps[0], steps[-1]))}
    note = f"{len(labels):,} training examples, {len(names)} classes, {settings.formula}, gradients: {settings.parameters}"
    panels = [figures.Panel("Size", "Frobenius norm", "log", over("frobenius_norm")),
              figures.Panel("Share of the encoder in a first step", "FT Ratio", "zero", over("ft_ratio", ["full"])),
              figures.Panel("Alignment with the classes", "centred alignment", "share", over("alignment"))]
    if len(steps) > 1:
        panels += [figures.Panel("How far the kernel has turned", "distance from the first", "zero", over("distance")),
                   figures.Panel("How fast it turns", "distance per step", "log", over("velocity"))]
    if settings.solver != "none":
        split = "eval" if len(other_labels) else "train"
        panels.append(figures.Panel(f"What it predicts ({settings.solver})", f"accuracy on {split} examples", "share",
                                    over(f"accuracy_{split}"), _majority(labels, other_labels if len(other_labels) else labels)))
    spectra = {part: {when: (summary.select(table, step=step, part=part, statistic="spectrum")["value"],
                             int(summary.course(table, [step], part, "rank")[0, 0])) for when, step in ends.items()}
               for part in summary.PARTS}
    tolerance = float(summary.course(table, steps[:1], "full", "rank_tolerance")[0, 0])
    said = f"{note}; dotted: always the largest class" if settings.solver != "none" else note
    made = {"course": figures.course(steps, panels, title=f"Kernel over training: {name}", note=said),
            "spectra": figures.spectra(spectra, tolerance, title=f"Singular values of the kernel: {name}", note=note),
            "blocks": figures.blocks({when: blocks[step] for when, step in ends.items()}, labels, names, note=note,
                                     title=f"Kernel between examples: {name}")}
    shares = {when: summary.select(table, step=step, statistic="trace_share") for when, step in ends.items()}
    if any(np.isfinite(found["value"]).any() for found in shares.values()):
        made["groups"] = figures.groups({when: dict(zip(found["group"].tolist(), found["value"].tolist(), strict=True))
                                         for when, found in shares.items()}, note=note,
                                        title=f"Whose gradients make the FT-effective kernel: {name}")
    return made


if __name__ == "__main__":
    run("kernel", main)
