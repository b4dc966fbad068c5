"""python pipelines/cloze.py ITEM -- facts that the masked-word predictions of every layer know ->
outputs/PLACE/cloze/"""

from finetrace.lenses.cloze.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("cloze", main)
