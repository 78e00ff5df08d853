"""A network as one file that needs neither its run nor, to be called, Flax.

`jaxexport` writes and reads compiled functions, `onnx` writes models for other
runtimes, `weights` writes params by the names of a library. Each is imported by itself,
so that what calls an exported file imports JAX alone.
"""
