"""python pipelines/influence.py TRAJECTORY -- which training examples taught which predictions, when -> .../influence/"""

from finetrace.lenses.influence.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("influence", main)
