"""python benchmarks/driver.py -- `finetrace repro` against plain `dvc repro`,
on a small study that passes through all stages

Prints the seconds of both from nothing to the end, their ratio, whether dvc.lock - the hashes of every result - is the
same, and the seconds of both with nothing to do. About 5 minutes on two cores. Exits with 1 when the hashes differ.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
FINETRACE, DVC = [sys.executable, "-m", "finetrace.cli"], [sys.executable, "-m", "dvc"]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="finetrace-driver-") as name:
        by_dvc, by_driver = project(Path(name) / "dvc"), project(Path(name) / "driver")
        print(f"{os.cpu_count()} cores; the study of tests/pipeline/params.yaml")
        reference = seconds([*DVC, "repro", "-q"], by_dvc)
        ours = seconds([*FINETRACE, "repro"], by_driver)
        same = results(by_dvc) == results(by_driver)
        row("from nothing to the end", reference, ours)
        print(f"{'dvc.lock (hashes of all results)':34} {'the same' if same else 'DIFFERENT'}")
        row("nothing to do", seconds([*DVC, "repro", "-q"], by_dvc), seconds([*FINETRACE, "repro"], by_driver))
    return 0 if same else 1


def project(folder: Path) -> Path:
    """A copy of the project with the small study, planned and committed."""
    folder.mkdir(parents=True)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("src", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc" / name)
    shutil.copy(ROOT / "tests/pipeline/params.yaml", folder / "params.yaml")
    subprocess.run([*FINETRACE, "plan"], cwd=folder, env=environment(folder), check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Our own interpreter first, nothing reported home, a DVC state of its own."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"), "DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1",
            "DVC_SITE_CACHE_DIR": str(folder.parent / f"site-{folder.name}")}


def seconds(command: list[str], folder: Path) -> float:
    """How long a command takes; its output goes to a file beside the folder."""
    started = time.perf_counter()
    with open(folder.parent / f"{folder.name}.log", "ab") as log:
        done = subprocess.run(command, cwd=folder, env=environment(folder), stdout=log, stderr=log)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed; the end of its output:\n"
                 + (folder.parent / f"{folder.name}.log").read_text("utf-8", "replace")[-3000:])
    return time.perf_counter() - started


def results(folder: Path) -> dict[str, object]:
    """Stage -> what dvc.lock says of it, hashes of inputs and outputs included."""
    return dict(yaml.safe_load((folder / "dvc.lock").read_text("utf-8"))["stages"])


def row(name: str, reference: float, ours: float) -> None:
    print(f"{name:34} dvc repro {reference:7.1f} s   finetrace repro {ours:7.1f} s   ratio {ours / reference:.2f}",
          flush=True)


if __name__ == "__main__":
    sys.exit(main())
