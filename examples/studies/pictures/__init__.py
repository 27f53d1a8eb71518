"""The pictures of the study, each drawn by `draw(figure, raw)` from the folder of the raw logs, in inches of `SIZE`."""
