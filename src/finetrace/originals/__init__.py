"""Files and inputs of the original programs, for runs beside them."""
