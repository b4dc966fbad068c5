"""python pipelines/edges.py ITEM -- probes of words and word pairs, layers, mixes,
checkpoints -> outputs/PLACE/edges/"""

from finetrace.lenses.edges.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("edges", main)
