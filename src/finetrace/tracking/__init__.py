"""Tracking: the only importer of mlflow; turns finished outputs into runs.

`collect` reads outputs into plain records, `publish` puts records into the store, `live` feeds a run while it trains,
`store` opens the store safely, `moved` replaces the experiment of a project that has moved, `doctor` explains what is
wrong with a project. MLflow is used by its public client only.
"""
