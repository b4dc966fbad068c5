"""python pipelines/probes.py TRAJECTORY -- classifiers on the sentence vectors of every layer -> .../sSEED/probes/"""

from finetrace.lenses.probes.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("probes", main)
