"""The neural tangent kernel of a classifier and its parts (Jacot et al. 2018; Tomihari and Sato 2024)."""
