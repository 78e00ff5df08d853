"""Looking into recurrent networks: diagnosis, and how they read.

    measures = inspect.measure(model, params, images, targets)   # a batch of about 32
    for diagnostic in inspect.diagnose(measures, rows=rows):     # rows: metrics.jsonl
        print(diagnostic.words, "->", diagnostic.suggestion)
    inspect.summary_figure(measures).savefig("summary.png")
    inspect.reading(model, params, images[0], classes=names).savefig("reading.png")
    Path("reading.gif").write_bytes(inspect.reading_gif(model, params, images[0]))

`images` are normalised as the model wants them, [B, H, W, C] or clips; `image` is one,
without the batch; `shown` the same in [0, 1] or uint8, for the eye. `targets`: int [B]
for the cross-entropy, floats [B] or [B, K] for the squared error; or give `loss`, a
function of the outputs. `rows`: dicts as in metrics.jsonl.
"""

from lstm_jax.inspect.animation import reading_gif
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
from lstm_jax.inspect.pictures import reading
from lstm_jax.inspect.results import read_results
from lstm_jax.inspect.trace import LayerTrace, Trace, trace
