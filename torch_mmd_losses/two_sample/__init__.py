"""Tests that compare samples."""
