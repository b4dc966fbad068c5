"""python pipelines/calibration.py TRAJECTORY -- do its probabilities mean what they say -> .../sSEED/calibration/"""

from finetrace.lenses.calibration.stage import main
from finetrace.pipeline.stage import run

if __name__ == "__main__":
    run("calibration", main)
