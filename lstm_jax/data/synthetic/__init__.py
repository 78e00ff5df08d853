"""Synthetic data sets, generated offline: digits, videos, scenes and text lines."""
