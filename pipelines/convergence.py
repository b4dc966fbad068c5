"""python pipelines/convergence.py TRAJECTORY -- do layers that converge probe better? -> .../sSEED/convergence/"""

from finetrace.lenses.convergence.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("convergence", main)
