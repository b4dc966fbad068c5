"""Tracking: the only importer of mlflow; turns finished outputs into runs.

`collect` reads outputs into plain records, `publish` puts records into the store, `live` feeds a run while it trains,
`store` opens the store safely, `doctor` explains what is wrong with a project.
"""
