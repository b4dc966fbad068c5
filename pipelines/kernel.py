"""python pipelines/kernel.py TRAJECTORY -- neural tangent kernel at checkpoints, and what it predicts -> .../kernel/"""

from finetrace.lenses.kernel.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("kernel", main)
