"""The tables of the study, each made by `table(raw)` from the folder of the raw logs, however few there are."""
