"""python pipelines/publish.py -- everything that the study has made becomes runs in MLflow -> mlruns/published.json"""

from finetrace.stage import Stage, run


def main(stage: Stage) -> None:
    from finetrace.tracking.publish import publish

    publish(stage.layout, stage.study)


if __name__ == "__main__":
    run("publish", main)
