"""Figures: one matplotlib function per figure, data in, Figure out. `draw` of a lens's module takes what was measured.

Code that decides how figures look lives here and nowhere else: by this place its changes draw again and measure nothing.
"""
