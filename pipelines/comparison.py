"""python pipelines/comparison.py NAME -- how similar are two trajectories, layer by layer -> comparisons/NAME/"""

from finetrace.lenses.comparison.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("comparison", main)
