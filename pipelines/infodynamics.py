"""python pipelines/infodynamics.py TRAJECTORY -- novelty, transience, resonance -> .../sSEED/infodynamics/"""

from finetrace.lenses.infodynamics.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("infodynamics", main)
