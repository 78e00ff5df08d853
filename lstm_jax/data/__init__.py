"""Data sets as NumPy arrays and batches: loaded by name, or from your own files."""

from lstm_jax.data.batches import (
    batch_indices,
    eval_batches,
    in_order,
    line_batches,
    normalization,
    pad_to_widest,
    prefetch,
    steps_per_epoch,
    train_batch,
    train_rows,
)
from lstm_jax.data.buckets import bucket_of, bucket_widths
from lstm_jax.data.cache import default_root
from lstm_jax.data.dataset import DataError, Dataset, Split
from lstm_jax.data.duplicates import Duplicates, find_duplicates
from lstm_jax.data.files.bidi import logical, visual
from lstm_jax.data.files.clip_reading import (
    clip_paths,
    read_clip,
    read_features,
    stream_frames,
)
from lstm_jax.data.files.csv_files import TABLES, TableFormat, table_format
from lstm_jax.data.files.images import find_images, image_paths, image_size, read_image
from lstm_jax.data.files.line_reading import WIDEST, read_line
from lstm_jax.data.files.placement import place_image
from lstm_jax.data.fingerprints import FINGERPRINT_FORMAT, differences, fingerprint
from lstm_jax.data.load import is_available, layout_of, load
from lstm_jax.data.sampling import balanced_order
from lstm_jax.data.splits import select_fold, split_folds, subset
