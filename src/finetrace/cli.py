"""The command `finetrace`: look, repro, show, compare, plan, use, publish, table, directprobe, accept, export, doctor.

Stages run through `finetrace repro` or `dvc repro`; `mlflow ui` shows the runs.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from finetrace import __version__
from finetrace.errors import FinetraceError, refusal
from finetrace.first_look.command import add_options
from finetrace.layout import Layout
from finetrace.store.verified import remember_in


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; exit code 0: done, 1: failed or problems found, 2: wrong usage."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        remember_in(Layout.here().verified)
        return int(options.run(options))
    except FinetraceError as error:
        print(f"finetrace: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("finetrace: interrupted; run the same command to continue", file=sys.stderr)
        return 130
    except Exception as error:
        if refused := refusal(error, Path.cwd()) or _database_refused(error):
            print(f"finetrace: {refused}", file=sys.stderr)
            return 1
        raise


def _database_refused(error: BaseException | None) -> str | None:
    """A sentence where sqlite could not write a file: MLflow's store, or what DVC remembers. It never says why."""
    while error is not None:
        if "disk I/O error" in str(error):
            return (f"{Path.cwd()}: a database of the project could not be written (disk I/O error); raise the limit "
                    "of file sizes (ulimit -f unlimited), see whether the disk is sound (dmesg), and run the same "
                    "command again: finished work is kept")
        error = error.__cause__ or error.__context__
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="finetrace", description="What training does to a language model. "
                                     "Run a study: finetrace repro. Look at it: mlflow ui, atlas/index.html.")
    parser.add_argument("--version", action="version", version=f"finetrace {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    look = commands.add_parser("look", help="a first look at models on some rows, without a study: one page, one table")
    add_options(look)
    look.set_defaults(run=_look)
    publish = commands.add_parser("publish", help="turn finished outputs into MLflow runs (safe to repeat)")
    publish.set_defaults(run=_publish)
    repro = commands.add_parser("repro", help="run what changed in the study, independent items side by side")
    repro.add_argument("--jobs", type=int, default=0, help="processes at a time; by default one per core "
                       "for studies of micro-BERTs, else one; on a cluster one per core of it")
    repro.add_argument("--engine", default="local", metavar="local|ray[:ADDRESS]", help="where items run: this machine "
                       "(default), or a Ray cluster that shares the project folder; ray:local tries it out")
    repro.set_defaults(run=_repro)
    _add_reading(commands)
    use = commands.add_parser("use", help="choose the study that is run: checks it, copies it to params.yaml")
    use.add_argument("study", help="a file such as studies/x.yaml, or the name x")
    use.add_argument("--force", action="store_true", help="overwrite changes in params.yaml that are saved nowhere")
    use.set_defaults(run=_use)
    plan = commands.add_parser("plan", help="check params.yaml, and write plan.yaml and settings/ from it")
    plan.add_argument("--list", action="store_true", help="print every item, without writing anything")
    plan.add_argument("--slurm", action="store_true", help="also print a script that makes what is out of date on a "
                      "SLURM cluster: finetrace plan --slurm > study.sh")
    plan.set_defaults(run=_plan)
    accept = commands.add_parser("accept", help="keep the results of stages over a change of code that you vouch for")
    accept.add_argument("stage", nargs="+", help="stages such as geometry, or all")
    accept.add_argument("--because", required=True, help="why the change alters no result; manifests, atlas "
                        "and MLflow say it")
    accept.set_defaults(run=_accept)
    table = commands.add_parser("table", help="print a published study's tables from this study's outputs, as Markdown")
    table.add_argument("name", choices=["closer-look", "lp-ft", "learning-dynamics"],
                       help="closer-look: clusters, probes and "
                       "similarity, original and tuned (Zhou and Srikumar 2022); lp-ft: accuracy, calibration, "
                       "features and kernels of linear probing, fine-tuning and adapters (Tomihari and Sato 2024); "
                       "learning-dynamics: edge probes, facts and downstream scores by step, adapted or not "
                       "(Zertuche and Liu 2021)")
    table.add_argument("--layer", type=int, help="closer-look: which of the layers, 0 the first, -1 the last (default)")
    table.add_argument("--split", help="split that is scored; by default test, else closer-look: the first of "
                       "probes.test_splits, lp-ft: validation")
    table.add_argument("--last", action="store_true", help="learning-dynamics: the first and last checkpoint only")
    table.set_defaults(run=_table)
    _add_directprobe(commands)
    export = commands.add_parser("export", help="write a checkpoint as a whole Hugging Face model, adapters merged")
    export.add_argument("checkpoint", type=Path,
                        help="a folder outputs/MODEL/TASK/METHOD/sSEED/trajectory/checkpoints/step-...")
    export.add_argument("out", type=Path, help="folder for the model; it must be absent or empty")
    export.add_argument("--base", type=Path, help="the model folder that the training started from; by "
                        "default models/MODEL")
    export.set_defaults(run=_export)
    doctor = commands.add_parser("doctor", help="find what is wrong with this project and say how to fix it")
    doctor.add_argument("--verify", action="store_true",
                        help="also hash every file of results, unfinished work and DVC's cache")
    doctor.set_defaults(run=_doctor)
    return parser


def _look(options: argparse.Namespace) -> int:
    from finetrace.first_look.command import run

    return run(options)


def _add_reading(commands: Any) -> None:
    """The commands that print what a study has found."""
    show = commands.add_parser("show", help="print the study's headline numbers: by model, task and method, over seeds")
    show.add_argument("place", nargs="?", help="one place, e.g. micro-a/micro-sentiment/ft/s1, with every lens")
    show.add_argument("--lens", help="whose numbers; by default those of the trainings, of one place those of all")
    show.add_argument("--json", action="store_true", help="everything as JSON, for scripts")
    show.set_defaults(run=_show)
    compare = commands.add_parser("compare", help="print what differs between two places: settings, numbers, examples")
    compare.add_argument("first", help="a place such as micro-a/micro-sentiment/ft/s1")
    compare.add_argument("second", help="another one")
    compare.add_argument("--set", help="examples of which set (default: validation)")
    compare.add_argument("--examples", type=int, default=5, help="how many of the changed examples are printed")
    compare.add_argument("--json", action="store_true", help="everything as JSON, with all changed examples")
    compare.set_defaults(run=_compare)


def _add_directprobe(commands: Any) -> None:
    """The command that runs the hull probe by itself."""
    probe = commands.add_parser("directprobe", help="run the hull probe on an INI file of the original "
                                "DirectProbe programs")
    probe.add_argument("config", type=Path, help="the INI file; results go to its output_path, in the original's files")
    probe.add_argument("--out", type=Path, help="folder for the results instead; it must be absent or empty")
    probe.add_argument("--mode", choices=["probing", "prediction", "batch_probing"], help="instead of the INI's mode")
    probe.add_argument("--min-size", type=int, default=6, metavar="N",
                       help="leave clusters of fewer points out of label distances (default 6, as the "
                       "original; 1: none)")
    probe.add_argument("--numbering", choices=["creation", "row"], default="creation",
                       help="cluster numbers: as they came to be (as the original), or by smallest row (faster)")
    probe.set_defaults(run=_directprobe)


def _publish(options: argparse.Namespace) -> int:
    from finetrace.study import load_study
    from finetrace.tracking.publish import publish

    layout = Layout.here()
    publish(layout, load_study(layout.params))
    return 0


def _repro(options: argparse.Namespace) -> int:
    from finetrace.pipeline.unchanged import is_unchanged

    layout = Layout.here()
    if is_unchanged(layout):  # before anything large is imported
        print("Data and pipelines are up to date.")
        return 0
    from finetrace.pipeline.repro import engine, repro

    return repro(layout, options.jobs, executor=engine(options.engine, layout))


def _show(options: argparse.Namespace) -> int:
    from finetrace.atlas.terminal import show, show_place
    from finetrace.study import load_study
    from finetrace.study.plan import last_settings

    layout = Layout.here()
    settings = last_settings(load_study(layout.params))["atlas"]
    if options.place:
        show_place(settings, layout, options.place, lens=options.lens, as_data=options.json)
    else:
        show(settings, layout, lens=options.lens or "trajectory", as_data=options.json)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from finetrace.atlas.terminal import compare
    from finetrace.study import load_study
    from finetrace.study.plan import last_settings

    layout = Layout.here()
    compare(last_settings(load_study(layout.params))["atlas"], layout, options.first, options.second,
            name=options.set, examples=options.examples, as_data=options.json)
    return 0


def _table(options: argparse.Namespace) -> int:
    from finetrace.reports import closer_look, learning_dynamics, lp_ft
    from finetrace.study import load_study

    layout = Layout.here()
    study = load_study(layout.params)
    if options.name != "closer-look" and options.layer is not None:
        raise FinetraceError(f"--layer: the tables of {options.name} are not about a layer; leave it out")
    if options.name != "learning-dynamics" and options.last:
        raise FinetraceError(f"--last: is for learning-dynamics, not {options.name}; leave it out")
    if options.name == "learning-dynamics":
        if options.split is not None:
            raise FinetraceError("--split: the tables of learning-dynamics are of the split that the lenses "
                                 "report; leave it out")
        print(learning_dynamics.tables(layout, study, last=options.last), end="")
    elif options.name == "lp-ft":
        print(lp_ft.tables(layout, study, split=options.split), end="")
    else:
        layer = -1 if options.layer is None else options.layer
        print(closer_look.tables(layout, study, layer=layer, split=options.split), end="")
    return 0


def _directprobe(options: argparse.Namespace) -> int:
    from finetrace.originals.directprobe import write_into
    from finetrace.originals.directprobe_inputs import read_settings

    if options.min_size < 1:
        raise FinetraceError(f"--min-size {options.min_size}: take 1 or more")
    logging.getLogger("finetrace").setLevel(logging.INFO)
    settings = read_settings(options.config)
    folder = options.out or settings.output_path
    result = write_into(folder, settings, mode=options.mode, min_size=options.min_size, numbering=options.numbering)
    for name, value in result.metrics.items():
        print(f"{name:32} {value:.9g}")
    print(f"written: {folder}")
    return 0


def _export(options: argparse.Namespace) -> int:
    import shutil

    from finetrace.models.saved import export
    from finetrace.store.checkpoints import is_complete
    from finetrace.store.files import atomic_folder
    from finetrace.store.manifest import OF_MANIFEST

    folder, out = options.checkpoint.resolve(), options.out
    if not is_complete(folder):
        raise FinetraceError(f"{options.checkpoint}: is no complete checkpoint; name a folder "
                             "trajectory/checkpoints/step-...")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FinetraceError(f"{out}: is there already; name a folder that is absent or empty")
    layout, parts = Layout.here(), folder.parts
    base = options.base or (layout.model(parts[-7]) if len(parts) > 7 and parts[-8] == "outputs" else None)
    with atomic_folder(out) as temporary:
        export(folder, base, temporary)
        for file in sorted(base.iterdir()) if base else []:
            if file.is_file() and file.suffix != ".safetensors" and not (temporary / file.name).exists() \
                    and file.name not in OF_MANIFEST:
                shutil.copyfile(file, temporary / file.name)  # the tokenizer
    print(f"written: {out}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from finetrace.tracking.doctor import doctor

    return 1 if doctor(Layout.here(), verify=options.verify) else 0


def _use(options: argparse.Namespace) -> int:
    from finetrace.study.use import use

    print(use(Layout.here(), options.study, force=options.force))
    return 0


def _plan(options: argparse.Namespace) -> int:
    from finetrace.pipeline.compile import compile_study
    from finetrace.pipeline.slurm import slurm_script
    from finetrace.study import load_study
    from finetrace.study.plan import names_of

    layout = Layout.here()
    if options.list:
        print("\n".join(names_of(load_study(layout.params))))
        return 0
    study, changed = compile_study(layout)
    if options.slurm:
        print(slurm_script(layout, study), end="")
        return 0
    print(f"study {study.study.name!r}: {len(names_of(study))} items, {len(study.trajectories)} fine-tunings; "
          f"plan.yaml {'is written' if changed else 'is up to date'}")
    return 0


def _accept(options: argparse.Namespace) -> int:
    from finetrace.pipeline.accept import accept
    from finetrace.study import load_study

    layout = Layout.here()
    load_study(layout.params)  # what is wrong with it is said first, whatever is accepted
    for line in accept(layout, options.stage, options.because):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
