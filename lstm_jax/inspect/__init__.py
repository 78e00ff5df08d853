"""Inspection of recurrent networks: diagnostics, and predictions step by step.

    measures = inspect.measure(model, params, images, targets)   # a batch of about 32
    for diagnostic in inspect.diagnose(measures, rows=rows):     # rows: metrics.jsonl
        print(diagnostic.words, "->", diagnostic.suggestion)
    inspect.summary_figure(measures).savefig("summary.png")
    inspect.trace_figure(model, params, images[0], classes=names).savefig("trace.png")
    Path("trace.gif").write_bytes(inspect.trace_gif(model, params, images[0]))

`images` are normalized network inputs, [B, H, W, C] or clips; `image` is one of them,
without the batch axis; `shown` is the same in [0, 1] or uint8, for display. `targets`:
int [B] for the cross-entropy, float [B] or [B, K] for the squared error; or pass
`loss`, a function of the outputs. `rows`: dicts as in metrics.jsonl.
"""

from lstm_jax.inspect.animation import trace_gif
from lstm_jax.inspect.diagnostics import diagnose
from lstm_jax.inspect.figures import summary_figure
from lstm_jax.inspect.gradients import carry_gradients, gradient_norms
from lstm_jax.inspect.history import Diagnostic, logged_updates, read_history
from lstm_jax.inspect.measures import (
    GateMeasures,
    LayerMeasures,
    Measures,
    measure,
    measure_cell,
)
from lstm_jax.inspect.results import read_results
from lstm_jax.inspect.trace import LayerTrace, Trace, trace
from lstm_jax.inspect.trace_figure import trace_figure
