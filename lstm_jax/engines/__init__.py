"""Ways to run a cell over time. `scan` is the definition; all others equal it."""
