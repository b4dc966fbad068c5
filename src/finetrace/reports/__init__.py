"""The published studies' own tables, from what a study measured, as Markdown."""
