"""How `experiments.predict` answers: for a run, weights or an exported file."""
