"""The parts of the evaluation: images, features of them, metrics, and results with where they come from."""
