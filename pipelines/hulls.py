"""python pipelines/hulls.py TRAJECTORY -- are the classes separable, and how far apart, in every layer -> .../hulls/"""

from finetrace.lenses.hulls.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("hulls", main)
