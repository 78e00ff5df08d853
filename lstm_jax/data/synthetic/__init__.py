"""Data sets that are drawn here: digits, videos, scenes and lines of text."""
