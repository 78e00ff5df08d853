"""Runs of many: cross-validation, seeds, and baselines to compare with."""
