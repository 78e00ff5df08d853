"""Cross-validation, multi-seed training, and baselines."""
