"""python pipelines/dynamics.py NAME -- what was learned when, and what adaptation kept and lost -> dynamics/NAME/"""

from finetrace.lenses.dynamics.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("dynamics", main)
