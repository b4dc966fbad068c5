"""python pipelines/pairs.py ITEM -- minimal pairs: which sentence every checkpoint finds more probable ->
outputs/PLACE/pairs/"""

from finetrace.lenses.pairs.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("pairs", main)
