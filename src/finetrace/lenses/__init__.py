"""One folder per lens: pure modules (arrays and tables in, numbers and tables out), figures, settings, stage.

Files, settings and stages are known to `stage` alone, and to `work`, `states`, `files` and `inputs` beside it.
"""
