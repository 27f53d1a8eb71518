"""Losses of discriminators and generators, and penalties on discriminators."""
