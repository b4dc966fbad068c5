"""Minimal pairs: which of two sentences a masked-word model finds more probable, at every checkpoint (Salazar et al.
2020; Kauf and Ivanova 2023).

scores       what a pair is worth, groups of pairs, shares and margins with intervals
acquisition  when a phenomenon is acquired
summary      the lens' table, headline numbers and curves
"""
