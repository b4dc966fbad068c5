"""Analyses: pure functions from arrays and tables to dataclasses and tables. No files, no settings, no tracking here."""
