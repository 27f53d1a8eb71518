"""The parts of `gpu.py`: what a GPU is asked, how it is timed, and how what it answers is kept."""
