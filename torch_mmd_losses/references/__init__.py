"""Samples that stay the same from step to step, prepared once: exactly, by landmarks or by random features."""
