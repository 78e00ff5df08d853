"""Conversion of weights and states from and to other libraries, as plain arrays.

None of the libraries is imported. `from_*` functions are differentiable, and accept CPU
tensors.

Common arguments: `caller` is the source named in errors, such as the file; `prefix` is
that of the names to read or write, such as "lstm." in a whole model. All raise
ValueError for missing or unexpected arrays and for wrong shapes, listed by name, and
for a nonzero bias that the other library cannot hold; NotImplementedError for a cell
that the other library does not have.
"""

from lstm_jax.interop.classifier import (
    from_keras_classifier,
    from_pytorch_classifier,
    to_keras_classifier,
    to_pytorch_classifier,
)
from lstm_jax.interop.cudnn import (
    from_cudnn,
    from_cudnn_carry,
    to_cudnn,
    to_cudnn_carry,
)
from lstm_jax.interop.equinox import (
    from_equinox,
    from_equinox_carry,
    to_equinox,
    to_equinox_carry,
)
from lstm_jax.interop.flax import (
    from_flax_carry,
    from_linen,
    from_nnx,
    to_flax_carry,
    to_linen,
    to_nnx,
)
from lstm_jax.interop.haiku import (
    from_haiku,
    from_haiku_carry,
    to_haiku,
    to_haiku_carry,
)
from lstm_jax.interop.keras import (
    from_keras,
    from_keras_carry,
    to_keras,
    to_keras_carry,
)
from lstm_jax.interop.keras_file import read_keras, write_keras
from lstm_jax.interop.pytorch import (
    from_pytorch,
    from_pytorch_carry,
    from_pytorch_cell,
    to_pytorch,
    to_pytorch_carry,
    to_pytorch_cell,
)
from lstm_jax.interop.safetensors import (
    read_safetensors,
    read_safetensors_metadata,
    write_safetensors,
)
from lstm_jax.interop.torch_file import read_torch, write_torch
