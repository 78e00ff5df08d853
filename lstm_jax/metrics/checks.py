"""Checks of predictions before they are scored."""

import numpy as np


def check_finite(task: str, finite, what: str = "predictions") -> None:
    """Raises ValueError unless all predictions are finite; `finite` is bool [N]."""
    if bad := int(np.sum(~finite)):
        raise ValueError(
            f"{task}: {bad} of {len(finite)} {what} hold NaN or infinity; the "
            "parameters have diverged: use an earlier checkpoint or train again with a "
            "lower learning rate"
        )
