"""The parts of `gpu.py`: the work on a GPU, its timing, and the records of its results."""
