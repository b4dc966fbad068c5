"""python pipelines/influence.py TRAJECTORY -- which training examples taught what, and when -> .../influence/"""

from finetrace.lenses.influence.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("influence", main)
