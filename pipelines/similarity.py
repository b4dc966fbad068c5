"""python pipelines/similarity.py TRAJECTORY -- which layers does training change, and when -> .../sSEED/similarity/"""

from finetrace.lenses.similarity.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("similarity", main)
