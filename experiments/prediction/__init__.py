"""How `experiments.predict` answers.

A `Predictor` is made of a run (`trained`) or of a .jaxexport file (`exported`), which
needs neither Flax nor our models.
"""
