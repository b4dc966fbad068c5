"""Figures: one matplotlib function per figure, data in, Figure out."""
