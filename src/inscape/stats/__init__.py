"""Resampling and correction: jackknife, weights, permutation, Holm and Benjamini-Hochberg."""
