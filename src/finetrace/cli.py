"""The command `finetrace`: repro, publish, use, grid, doctor. Stages run through `dvc repro`; `mlflow ui` shows the runs."""

import argparse
import logging
import subprocess
import sys
from pathlib import Path

from finetrace import __version__
from finetrace.errors import FinetraceError
from finetrace.layout import Layout


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; exit code 0: done, 1: failed or problems found, 2: wrong usage."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        return int(options.run(options))
    except FinetraceError as error:
        print(f"finetrace: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("finetrace: interrupted; run the same command to continue", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="finetrace", description="What training does to a language model. "
                                     "Run a study: dvc repro. Look at it: mlflow ui, atlas/index.html.")
    parser.add_argument("--version", action="version", version=f"finetrace {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    publish = commands.add_parser("publish", help="turn finished outputs into MLflow runs (safe to repeat)")
    publish.set_defaults(run=_publish)
    repro = commands.add_parser("repro", help="run what changed in the study, independent items side by side")
    repro.add_argument("--jobs", type=int, default=0, help="processes at a time; by default one per core for studies of "
                       "micro-BERTs, else one")
    repro.set_defaults(run=_repro)
    use = commands.add_parser("use", help="choose the study that dvc repro runs: checks it, copies it to params.yaml")
    use.add_argument("study", help="a file such as studies/x.yaml, or the name x")
    use.add_argument("--force", action="store_true", help="overwrite changes in params.yaml that are saved nowhere")
    use.set_defaults(run=_use)
    grid = commands.add_parser("grid", help="print cells and trajectories of models x tasks x methods x seeds for params.yaml")
    for name, default in (("models", None), ("tasks", None), ("methods", ["ft"]), ("seeds", ["1"])):
        grid.add_argument(f"--{name}", nargs="+", required=default is None, default=default)
    grid.set_defaults(run=_grid)
    doctor = commands.add_parser("doctor", help="find what is wrong with this project and say how to fix it")
    doctor.set_defaults(run=_doctor)
    return parser


def _publish(options: argparse.Namespace) -> int:
    from finetrace.config import load_study
    from finetrace.tracking.publish import publish

    layout = Layout.here()
    publish(layout, load_study(layout.params))
    return 0


def _repro(options: argparse.Namespace) -> int:
    from finetrace.repro import default_jobs, repro

    layout = Layout.here()
    return repro(layout, options.jobs or default_jobs(layout))


def _grid(options: argparse.Namespace) -> int:
    from itertools import product

    cells = list(product(options.models, options.tasks, options.methods))
    print("cells:")
    for model, task, method in cells:
        print(f"  {model}_{task}_{method}: {{model: {model}, task: {task}, method: {method}}}")
    print("\ntrajectories:")
    for (model, task, method), seed in product(cells, options.seeds):
        print(f"  {model}_{task}_{method}_s{seed}: {{model: {model}, task: {task}, method: {method}, seed: {seed}}}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from finetrace.tracking.doctor import doctor

    return 1 if doctor(Layout.here()) else 0


def _use(options: argparse.Namespace) -> int:
    from finetrace.config import load_study
    from finetrace.store.files import write_bytes

    layout = Layout.here()
    studies = layout.root / "studies"
    study = Path(options.study)
    if not study.is_file():
        study = studies / f"{study.name.removesuffix('.yaml')}.yaml"
    if not study.is_file():
        known = ", ".join(sorted(p.stem for p in studies.glob("*.yaml"))) or "none"
        raise FinetraceError(f"no study {options.study!r}; there are: {known}")
    loaded = load_study(study)
    content = study.read_bytes()
    if layout.params.is_file() and not options.force and layout.params.read_bytes() != content and _unsaved(layout):
        raise FinetraceError("params.yaml: has changes that are saved nowhere; save them as a study first "
                             "(cp params.yaml studies/NAME.yaml) or overwrite them with --force")
    write_bytes(layout.params, content)
    print(f"params.yaml is now {study}: study {loaded.study.name!r}, {len(loaded.trajectories)} trajectories; "
          "next: dvc repro")
    return 0


def _unsaved(layout: Layout) -> bool:
    """Whether params.yaml is neither what git has nor any file of studies/."""
    content = layout.params.read_bytes()
    if any(path.read_bytes() == content for path in (layout.root / "studies").glob("*.yaml")):
        return False
    try:
        committed = subprocess.run(["git", "-C", str(layout.root), "show", "HEAD:./params.yaml"], capture_output=True)
    except FileNotFoundError:
        return True
    return committed.returncode != 0 or committed.stdout != content


if __name__ == "__main__":
    sys.exit(main())
