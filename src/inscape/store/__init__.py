"""Activations on disk or in memory: rows of sites with an index to stimuli."""
