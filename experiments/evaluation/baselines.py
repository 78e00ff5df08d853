"""What scikit-learn reaches on the same split: a result means little alone."""

import time

import numpy as np

from lstm_jax.data import Dataset

# A support-vector machine takes time n² for n pictures, or worse.
LARGEST = 10_000  # pictures
LARGEST_NUMBERS = 50_000_000  # of all pictures together


def fit(dataset: Dataset) -> dict[str, dict[str, float]]:
    """Test accuracy of a support-vector machine and of the nearest neighbour.

    Both learn from the training and the validation pictures, as neither needs the
    latter to choose anything by: a little more than the network gets.

    Returns:
      `{"svc": {"accuracy", "seconds"}, "nearest_neighbour": …}`; empty where there
      are too many pictures, or no classes.
    """
    learnt = [dataset.splits[name] for name in ("train", "validation")]
    test = dataset.splits["test"]
    if (
        not dataset.classes
        or dataset.target_type != "labels"
        or sum(len(split.inputs) for split in learnt) > LARGEST
        or sum(split.inputs.size for split in learnt) > LARGEST_NUMBERS
    ):
        return {}

    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler
    from sklearn.svm import SVC

    inputs = np.concatenate([split.inputs for split in learnt])
    targets = np.concatenate([split.targets for split in learnt])
    scores = {}
    for name, model in {
        "svc": make_pipeline(MinMaxScaler(), SVC(C=10.0)),
        "nearest_neighbour": KNeighborsClassifier(1),
    }.items():
        start = time.perf_counter()
        model.fit(_flat(inputs), targets)
        accuracy = float(model.score(_flat(test.inputs), test.targets))
        scores[name] = {
            "accuracy": accuracy,
            "seconds": round(time.perf_counter() - start, 3),
        }
    return scores


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32)
