"""Files of weights: read as their libraries do, and refused where they are bad."""

import json
import os
import pickle
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from lstm_jax.interop import (
    read_safetensors,
    read_torch,
    write_safetensors,
    write_torch,
)

ARRAYS = {
    "a/w": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "b": np.arange(3.0),
    "half": np.asarray([1, 2], jnp.bfloat16),
    "none": np.zeros((0, 4), np.float32),
    "one": np.float32(7),
}


def same(got, want):
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].dtype == array.dtype, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_there_and_back_is_identical(kind, tmp_path):
    write = {"safetensors": write_safetensors, "torch": write_torch}[kind]
    read = {"safetensors": read_safetensors, "torch": read_torch}[kind]
    same(read(write(tmp_path / "new" / "file", ARRAYS)), ARRAYS)
    assert os.listdir(tmp_path / "new") == ["file"]


def test_equals_the_package_safetensors(tmp_path):
    theirs = pytest.importorskip("safetensors.numpy", reason="compared with")
    arrays = {k: np.ascontiguousarray(v) for k, v in ARRAYS.items() if k != "half"}
    path = write_safetensors(tmp_path / "ours", arrays)
    same(theirs.load_file(path), arrays | {"one": np.asarray(arrays["one"])})
    theirs.save_file(arrays, tmp_path / "theirs")
    same(read_safetensors(tmp_path / "theirs"), arrays)


def test_equals_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is compared with")
    arrays = {k: np.ascontiguousarray(v) for k, v in ARRAYS.items() if k != "half"}
    path = write_torch(tmp_path / "ours.pt", arrays)
    loaded = torch.load(path, weights_only=True)
    same({k: v.numpy().reshape(np.shape(arrays[k])) for k, v in loaded.items()}, arrays)

    module = torch.nn.LSTM(3, 4, bidirectional=True)
    base = torch.arange(24.0).reshape(4, 6)
    saved = {
        "model": module.state_dict(),
        "epoch": 3,
        "of": [1, None, "words"],
        "view": base.T[1:, ::2],
        "parameter": torch.nn.Parameter(base[2]),
        "half": base.to(torch.bfloat16),
    }
    torch.save(saved, tmp_path / "theirs.pt")
    got = read_torch(tmp_path / "theirs.pt")
    want = {f"model.{k}": v.numpy() for k, v in module.state_dict().items()}
    want |= {"view": base.T[1:, ::2].numpy(), "parameter": base[2].numpy()}
    same(got, want | {"half": base.numpy().astype(jnp.bfloat16)})


class Evil:
    def __reduce__(self):
        return os.mkdir, (self.path,)


def zipped(path, program, data=b"\0" * 16, kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", kind) as file:
        file.writestr("x/data.pkl", program)
        file.writestr("x/data/0", data)


def table(shape=(4,), strides=(1,), count=4, offset=0):
    """The pickle of one tensor "w", by its own writer's bytes with other numbers."""
    from lstm_jax.interop import torch_file as f

    numbers = (b"(" + b"".join(map(f._int, n)) + b"t" for n in (shape, strides))
    storage = f._text("storage") + f._global("torch FloatStorage") + f._text("0")
    return b"".join(
        [b"\x80\x02}(", f._text("w"), f._global(f._TENSOR), b"((", storage]
        + [f._text("cpu"), f._int(count), b"tQ", f._int(offset), *numbers]
        + [b"\x89", f._global(f._TABLE), b")RtRu."]
    )


def test_the_table_that_bad_ones_are_made_from_is_read(tmp_path):
    zipped(tmp_path / "x.pt", table())
    same(read_torch(tmp_path / "x.pt"), {"w": np.zeros(4, np.float32)})


BAD_TORCH = {
    "would call": lambda evil: pickle.dumps({"w": evil}, protocol=2),
    "would call p": lambda evil: pickle.dumps({"w": evil}, protocol=4),
    "its table is damaged|no end": lambda evil: table()[:-20],
    "reaches beyond": lambda evil: table(offset=1),
    r"w \(2684354560,\) reaches beyond": lambda evil: table((10 * 2**28,), (0,)),
    "claims 2,684,354,560 numbers": lambda evil: table(count=10 * 2**28),
    "has no shape": lambda evil: table(strides=(-1,)),
    "no table of tensors": lambda evil: pickle.dumps(3, protocol=2),
    "more than tensors by name": lambda evil: pickle.dumps({1: b"x"}, protocol=4),
}


@pytest.mark.parametrize("says", BAD_TORCH)
def test_a_bad_torch_file_is_refused_in_one_line(says, tmp_path):
    evil, path = Evil(), tmp_path / "x.pt"
    evil.path = str(tmp_path / "made")
    zipped(path, BAD_TORCH[says](evil))
    with pytest.raises(ValueError, match=says) as error:
        read_torch(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))
    assert os.listdir(tmp_path) == ["x.pt"]  # nothing ran


@pytest.mark.parametrize("content", ["pickle", "cut", "packed", "empty"])
def test_what_is_no_archive_of_tensors_is_refused(content, tmp_path):
    evil, path = Evil(), tmp_path / "x.pt"
    evil.path = str(tmp_path / "made")
    zipped(path, table(), kind=zipfile.ZIP_DEFLATED)
    whole = path.read_bytes()
    bad = {"pickle": pickle.dumps(evil), "cut": whole[:-40], "packed": whole}
    path.write_bytes(bad.get(content, b""))
    with pytest.raises(
        ValueError, match=r"x.pt: not a readable .pt file \(.*"
    ) as error:
        read_torch(path)
    assert "\n" not in str(error.value) and os.listdir(tmp_path) == ["x.pt"]


def header(size=16, offsets=(0, 16), shape=(4,), dtype="F32", length=None):
    about = {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}
    text = json.dumps(about).encode()
    return (length or len(text)).to_bytes(8, "little") + text + b"\0" * size


def placed(size, **places):
    """Float arrays at given bytes, in a file of `size` bytes of data."""
    about = {
        name: {"dtype": "F32", "shape": [(e - b) // 4], "data_offsets": [b, e]}
        for name, (b, e) in places.items()
    }
    text = json.dumps(about).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * size


BAD_SAFETENSORS = {
    "header claims 10,737,418,240 bytes": header(length=10 * 2**30),
    r"w \(2684354560,\) wants 10,737,418,240": header(
        shape=(10 * 2**28,), offsets=(0, 10 * 2**30)
    ),
    r"w \(4,\) wants 16 bytes": header(size=12),
    r"w \(5,\) wants 20 bytes": header(shape=(5,)),
    "arrays have 16 bytes, the file 17": header(size=17),
    "has no shape and place": header(shape=(-4,)),
    "has no shape": header(shape="F32"),
    "has dtype 'O'": header(dtype="O"),
    "is not JSON": (4).to_bytes(8, "little") + b"\x80\x02}.",
    "header claims": b"",
    "header is not a JSON object": (2).to_bytes(8, "little") + b"[]",
    "b at byte 4 overlaps a": placed(a=(0, 8), b=(4, 12), size=16),
    "c at byte 0 overlaps a": placed(a=(0, 8), c=(0, 8), size=16),
    "8 bytes before b are unused": placed(a=(0, 8), b=(16, 24), size=24),
    "arrays have 8 bytes, the file 24": placed(a=(0, 8), size=24),
}


@pytest.mark.parametrize("says", BAD_SAFETENSORS)
def test_a_bad_safetensors_file_is_refused_in_one_line(says, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(BAD_SAFETENSORS[says])
    with pytest.raises(
        ValueError, match=f"not a readable .safetensors.*{says}"
    ) as error:
        read_safetensors(path)
    assert "\n" not in str(error.value)
