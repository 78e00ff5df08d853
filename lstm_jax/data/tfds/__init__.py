"""Data sets of TensorFlow Datasets, prepared and read without TensorFlow."""
