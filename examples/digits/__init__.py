"""The parts of the demo: handwritten digits, small networks, a measure of samples, figures and run folders."""
