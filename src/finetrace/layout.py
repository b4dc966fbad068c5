"""The only module that knows where files lie."""

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from finetrace.errors import FinetraceError

OF_SCRIPT = {"fact-files": "facts", "minimal-pair-files": "minimal-pairs", "model-folder": "model",
             "series-folder": "series", "series-model": "series", "data-files": "data", "train-tuned": "train"}
"""Stages that share a script, because DVC wants files that are read to be named -> the script's stage."""
_SLUG = re.compile(r"[a-z0-9][a-z0-9.-]*")


def slug(name: str, otherwise: str = "") -> str:
    """A name that is safe as one folder name: lower-case letters, digits, dots, hyphens.

    `bert-base-uncased` stays; `google/bert_uncased_L-2` becomes `google-bert-uncased-l-2`, `été` `ete`; what has no
    such letter or digit becomes `otherwise`, or is an error without it.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", name.lower()) if not unicodedata.combining(c))
    text = re.sub(r"[^a-z0-9.-]+", "-", plain).strip(".-") or otherwise
    text = re.sub(r"\.{2,}", ".", text)
    if not text:
        raise FinetraceError(f"name {name!r}: has no letter or digit; choose a name such as 'my-task'")
    return text


def is_slug(name: str) -> bool:
    """Whether `name` can name a folder as it is."""
    return bool(_SLUG.fullmatch(name)) and ".." not in name and not name.endswith(".")


@dataclass(frozen=True)
class Layout:
    """Paths of one project.

    root: the workspace in which stages run (a temporary folder under `dvc exp run --temp`);
    home: the user's project folder, where the tracking store and unfinished work live.
    """

    root: Path
    home: Path

    @classmethod
    def here(cls) -> "Layout":
        """The layout for the current folder; DVC tells stages the real project in DVC_ROOT."""
        root = Path.cwd()
        return cls(root=root, home=Path(os.environ.get("DVC_ROOT") or root))

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def plan(self) -> Path:
        """What dvc.yaml reads: the items of every stage."""
        return self.root / "plan.yaml"

    @property
    def settings(self) -> Path:
        """Resolved settings of every item, and code fingerprints."""
        return self.root / "settings"

    @property
    def world(self) -> Path:
        return self.root / "data" / "world"

    @property
    def atlas(self) -> Path:
        return self.root / "atlas"

    @property
    def published(self) -> Path:
        """Marker of the publish stage."""
        return self.root / "mlruns" / "published.json"

    @property
    def tracking_artifacts(self) -> Path:
        return self.home / "mlruns"

    @property
    def logs(self) -> Path:
        return self.home / ".finetrace" / "logs"

    @property
    def verified(self) -> Path:
        """What is known of large files that were found whole; safe to delete."""
        return self.home / ".finetrace" / "verified"

    def scratch(self, stage: str, key: str) -> Path:
        """Unfinished work of one stage and one set of settings; survives a crash, not an `out` of DVC."""
        return self.home / ".finetrace" / "scratch" / stage / key[:24]

    def task(self, task: str) -> Path:
        return self.root / "data" / task

    def model(self, model: str) -> Path:
        return self.root / "models" / model

    def pretrain(self, model: str) -> Path:
        return self.root / "outputs" / model / "pretrain" / "trajectory"

    def adapt(self, name: str) -> Path:
        return self.root / "outputs" / name / "adapt" / "trajectory"

    def place(self, place: str) -> Path:
        """Everything about one trajectory, named as its folder in outputs: MODEL/pretrain, MODEL/TASK/METHOD/sSEED,
        ..."""
        return self.root.joinpath("outputs", *place.split("/"))

    def measured(self, stage: str, item: str) -> Path:
        """The last measurement of a lens's item, kept so that a changed figure measures nothing; safe to delete."""
        return self.home / ".finetrace" / "measured" / stage / (item or stage)

    def results(self, stage: str, key: str) -> Path:
        """Finished results of one checkpoint, kept so that a further checkpoint costs only itself; safe to delete."""
        return self.home / ".finetrace" / "results" / stage / key[:24]

    def cell(self, model: str, task: str, method: str) -> Path:
        return self.root / "outputs" / model / task / method

    def tune(self, model: str, task: str, method: str) -> Path:
        return self.cell(model, task, method) / "tune"

    def run(self, model: str, task: str, method: str, seed: int) -> Path:
        """Everything about one training: `trajectory/` and one folder per lens."""
        return self.cell(model, task, method) / f"s{seed}"

    def comparison(self, name: str) -> Path:
        """What compares two trajectories."""
        return self.root / "comparisons" / name

    def cross_task(self, name: str) -> Path:
        """What a training on one task did to the classes of another."""
        return self.root / "cross-tasks" / name

    def downstream(self, name: str) -> Path:
        """A task learned from each checkpoint of a trajectory."""
        return self.root / "outputs" / "downstream" / name

    def dynamics(self, name: str) -> Path:
        """What was learned when, over trajectories."""
        return self.root / "dynamics" / name

    def directprobe(self, name: str) -> Path:
        """The hull probe on the inputs of the original programs."""
        return self.root / "directprobe" / name

    def standalone(self, stage: str, name: str) -> Path:
        """Results of a stage that belong to no single trajectory (see `Study.standalone`)."""
        return {"comparison": self.comparison, "cross-task": self.cross_task, "downstream": self.downstream,
                "dynamics": self.dynamics, "directprobe": self.directprobe}[stage](name)

    def relative(self, path: Path) -> str:
        """A path as manifests name it: relative to the workspace, with forward slashes."""
        for place in (os.path.abspath, os.path.realpath):  # first as written: it may be a link
            for base in (os.path.abspath, os.path.realpath):
                if (written := Path(place(path))).is_relative_to(root := base(self.root)):
                    return written.relative_to(root).as_posix()
        return path.name
