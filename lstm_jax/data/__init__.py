"""Images and targets as numpy batches: sets by name, or a person's own."""

from lstm_jax.data.batches import (
    batch_indices,
    eval_batches,
    in_order,
    line_batches,
    normalization,
    pad_to_widest,
    read_ahead,
    steps_per_epoch,
    train_batch,
    train_rows,
)
from lstm_jax.data.bidi import logical, visual
from lstm_jax.data.buckets import bucket_of, bucket_widths
from lstm_jax.data.cache import default_root
from lstm_jax.data.clip_reading import (
    clip_paths,
    read_clip,
    read_features,
    stream_frames,
)
from lstm_jax.data.dataset import VOID, DataError, Dataset, Split, limited
from lstm_jax.data.folds import deal_folds, take_fold
from lstm_jax.data.images import image_paths, picture_size, read_image
from lstm_jax.data.line_reading import WIDEST, read_line
from lstm_jax.data.source import load

__all__ = [
    "VOID",
    "WIDEST",
    "DataError",
    "Dataset",
    "Split",
    "batch_indices",
    "bucket_of",
    "bucket_widths",
    "clip_paths",
    "deal_folds",
    "default_root",
    "eval_batches",
    "image_paths",
    "in_order",
    "limited",
    "line_batches",
    "load",
    "logical",
    "normalization",
    "pad_to_widest",
    "picture_size",
    "read_ahead",
    "read_clip",
    "read_features",
    "read_image",
    "read_line",
    "steps_per_epoch",
    "stream_frames",
    "take_fold",
    "train_batch",
    "train_rows",
    "visual",
]
