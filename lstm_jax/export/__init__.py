"""Exports a network to a file that can be called without Flax or the run.

`jaxexport` writes and reads compiled functions, `onnx` writes models for other
runtimes, `weights` writes params with the names of another library. Import them
individually, so that running an exported file imports JAX only.
"""
