"""Experiments: arms x seeds, run on one machine or many, and compared honestly."""
