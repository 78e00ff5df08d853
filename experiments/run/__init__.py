"""A run's folder, its records, and how a run is loaded again."""
