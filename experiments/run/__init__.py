"""The run folder and its files, and loading a run."""
