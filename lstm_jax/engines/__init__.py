"""Engines that run a cell over time; `scan` is the reference implementation."""
