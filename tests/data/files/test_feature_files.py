"""Files of features: hostile headers are refused, and only picked steps are read."""

import tracemalloc

import numpy as np
import pytest

from lstm_jax.data import DataError, load, read_features

GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 24), }"


def npy(header):
    """A file with this header and 24 numbers."""
    text = f"{header}\n".encode()
    size = len(text).to_bytes(2, "little")
    return b"\x93NUMPY\x01\x00" + size + text + bytes(96)


def shaped(shape):
    return npy(GOOD.replace("(1, 24)", shape))


HOSTILE = {
    "bool": (shaped("(True, 24)"), "its header is damaged"),
    "power": (shaped("(10**30, 1)"), "its header is damaged"),
    "huge": (shaped(f"({10**30}, 1)"), "its header is damaged"),
    "negative": (shaped("(-1, 24)"), "its header is damaged"),
    "more": (shaped("(2, 24)"), "it is cut off: its header claims more"),
    "key": (npy(GOOD.replace("'shape'", "['shape']")), "its header is damaged"),
    "signs": (shaped(f"({'-' * 9000}1, 24)"), "its header is damaged"),
    "nested": (shaped("(" * 900 + "1, 24)"), "its header is damaged"),
    "string": (npy(GOOD.replace("'shape'", "'''shape")), "its header is damaged"),
    "blank": (npy(""), "its header is damaged"),
    "objects": (npy(GOOD.replace("<f4", "O")), "it holds Python objects"),
    "dtype": (npy(GOOD.replace("'<f4'", "'('")), "its header is damaged"),
    "version": (b"\x93NUMPY\x09\x00\x10\x00", "its header is damaged"),
    "short": (b"\x93NUM", "it does not begin like one"),
    "archive": (b"PK\x03\x04" + bytes(50), "it is a zip archive, such as .npz"),
    "pickle": (b"\x80\x04K\x01.", "it does not begin like one"),
}


def test_the_unharmed_header_is_read(tmp_path):
    (tmp_path / "good.npy").write_bytes(npy(GOOD))
    assert read_features(tmp_path / "good.npy", 1)[0].shape == (1, 24)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused_in_one_line(name, tmp_path):
    content, words = HOSTILE[name]
    path = tmp_path / f"{name}.npy"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_features(path, 8)
    assert str(error.value).startswith(f"{path}: not a readable .npy ({words}")
    assert len(str(error.value)) < len(str(path)) + 120
    assert "\n" not in str(error.value)


def test_hostile_headers_do_not_stop_the_others(tmp_path):
    lines = ["path,label"]
    for k in range(8):
        np.save(tmp_path / f"{k}.npy", np.full((3, 24), k, np.float32))
        lines.append(f"{k}.npy,{'ab'[k % 2]}")
    for name, (content, _) in HOSTILE.items():
        (tmp_path / f"{name}.npy").write_bytes(content)
        lines.append(f"{name}.npy,a")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    data = load(tmp_path / "t.csv", data_dir=tmp_path / "cache")
    assert sum(len(split.inputs) for split in data.splits.values()) == 8
    assert any("more clips that cannot be used" in note for note in data.notes)


def test_only_the_picked_steps_are_read(tmp_path):
    steps, width = 1 << 20, 1 << 10  # 4 GiB, which the disk does not hold
    path = tmp_path / "long.npy"
    array = np.lib.format.open_memmap(path, "w+", np.float32, (steps, width))
    array[-1] = 7
    array[steps // 2] = np.nan  # not picked
    array.flush()
    tracemalloc.start()
    values, length = read_features(path, 8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert length == 8 and (values[-1] == 7).all() and not values[:-1].any()
    assert peak < 1 << 20


def test_numbers_beyond_float32_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.full((2, 2), 1e300))
    with pytest.raises(DataError, match="x.npy: holds NaN or infinite numbers"):
        read_features(tmp_path / "x.npy", 2)
