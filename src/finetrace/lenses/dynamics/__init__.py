"""Learning dynamics: what is learned when, and what adaptation keeps and loses, from the scores of other lenses
(Zertuche and Liu 2021; Tenney et al. 2019; Sellam et al. 2022)."""
