"""The parts of `experiments.predict`.

A `Predictor` is loaded from a run or its weights (`trained`), or from a .jaxexport file
(`exported`), which needs neither Flax nor the models.
"""
