"""Studies of the papers' claims in the small: what is run, decided before it is run, and reports of the raw logs."""
