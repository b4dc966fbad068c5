"""Tasks: from a hub data set, local files or the micro world to Parquet with a manifest."""
