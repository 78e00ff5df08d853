"""Recognisers as kraken writes them, of params that are ours."""

import json

import numpy as np

from lstm_jax.interop import to_pytorch, write_safetensors

PREFIX = "1f2e3d4c"


def tensors(params):
    """kraken's arrays of a VGSLNet's params, by its names."""
    found = {}
    for name, own in params.items():
        at = f"{PREFIX}.nn.{name}"
        if "scale" in own:
            found |= {f"{at}.layer.weight": own["scale"]}
            found |= {f"{at}.layer.bias": own["bias"]}
        elif "forward" in own:
            pair = [own[way] for way in ("forward", "backward") if way in own]
            found |= to_pytorch([pair], prefix=f"{at}.layer.")
        else:
            axes = (3, 2, 0, 1) if own["kernel"].ndim == 4 else (1, 0)
            module = "co" if own["kernel"].ndim == 4 else "lin"
            found[f"{at}.{module}.weight"] = np.transpose(own["kernel"], axes)
            found[f"{at}.{module}.bias"] = own["bias"]
    return {name: np.asarray(array) for name, array in found.items()}


def write(path, spec, params, alphabet, **others):
    """A file with one network; `others` are of what kraken tells of it."""
    codec = {character: [k] for k, character in enumerate(alphabet, 1)}
    about = {"_model": "TorchVGSLModel", "_tasks": ["recognition"]}
    about |= {"vgsl": spec, "codec": codec} | others
    metadata = {"kraken_meta": json.dumps({PREFIX: about})}
    return write_safetensors(path, tensors(params), metadata)
