"""Data sets by name: tfds without TensorFlow, offline, from small made-up archives."""

import functools
import gzip
import http.server
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lstm_jax.data import DataError, load
from lstm_jax.data.tfds import builders, decoding, preparing

ROOT = Path(__file__).parents[3]
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def idx(array):
    head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return head + array.astype(np.uint8).tobytes()


def images_of(labels, shape=(28, 28), seed=0):
    """Noise whose first pixel tells the label, so that pairs can be checked."""
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), *shape))
    images.reshape(len(labels), -1)[:, 0] = labels
    return images.astype(np.uint8)


def write_mnist(folder, *, packed=True, prefix="", train=60, test=20, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    names = ("train", "test") if prefix else ("train", "t10k")
    for name, n in zip(names, (train, test), strict=True):
        labels = np.arange(n) % 10
        images = images_of(labels, seed=seed)
        arrays[name] = images
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            data = idx(array)
            path = folder / f"{prefix}{name}-{kind}-ubyte"
            if packed:
                path = path.with_name(path.name + ".gz")
                data = gzip.compress(data)
            path.write_bytes(data)
    return arrays


def rows(images):
    return sorted(image.tobytes() for image in images)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test reaches out, on whatever machine it runs."""

    def refuse(address, timeout=None):
        raise OSError(f"no route to {address[0]}")

    monkeypatch.setattr(preparing.socket, "create_connection", refuse)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_digits_are_the_scans_in_a_fixed_stratified_split(cache):
    from sklearn.datasets import load_digits

    data = load("digits", data_dir=cache)
    assert data.name == "digits" and data.notes == ()
    assert data.classes == tuple("0123456789") and data.image_shape == (8, 8, 1)
    sizes = {name: len(split.inputs) for name, split in data.splits.items()}
    assert sizes == {"train": 1293, "validation": 144, "test": 360}
    raw = load_digits()
    pairs = {
        (np.round(image * 255 / 16).astype(np.uint8).tobytes(), label)
        for image, label in zip(raw.images, raw.target, strict=True)
    }
    seen = set()
    for split in data.splits.values():
        assert split.inputs.dtype == np.uint8 and split.targets.dtype == np.int32
        for image, label in zip(split.inputs, split.targets, strict=True):
            seen.add((image.tobytes(), label))
    assert seen == pairs  # the scans are all different, so none is lost or doubled
    assert len(pairs) == 1797
    counts = np.bincount(data.splits["test"].targets)
    np.testing.assert_allclose(counts, np.bincount(raw.target) * 360 / 1797, atol=1)


def test_validation_share_and_seed_leave_the_test_split_alone(cache):
    one = load("digits", data_dir=cache)
    two = load("digits", data_dir=cache, seed=1, validation=0.25)
    np.testing.assert_array_equal(one.splits["test"].inputs, two.splits["test"].inputs)
    assert len(two.splits["validation"].inputs) == round(0.25 * 1437)
    again = load("digits", data_dir=cache)
    for name in one.splits:
        np.testing.assert_array_equal(
            one.splits[name].inputs, again.splits[name].inputs
        )
    other = load("digits", data_dir=cache, seed=1)
    pair = [set(rows(d.splits["validation"].inputs)) for d in (one, other)]
    assert len(pair[0] & pair[1]) < 40


@pytest.mark.parametrize("name", ["digits-angle", "digits_angle"])
def test_digits_angle_targets_turn_the_scan_to_the_image(cache, name):
    from lstm_jax.data.synthetic.digits import angles, scans, turned

    data = load(name, data_dir=cache)
    assert data.classes == () and data.image_shape == (16, 16, 1)
    degrees = np.concatenate([s.targets for s in data.splits.values()])
    assert degrees.dtype == np.float32 and degrees.shape == (1797, 1)
    assert sorted(degrees[:, 0]) == sorted(angles())
    assert -45 <= degrees.min() < -40 and 40 < degrees.max() <= 45
    by_angle = dict(zip(angles().tolist(), scans()[0], strict=True))
    for split in data.splits.values():
        for image, angle in list(zip(split.inputs, split.targets, strict=True))[:20]:
            wanted = turned(by_angle[float(angle[0])], float(angle[0]))
            np.testing.assert_array_equal(image[..., 0], wanted)


def test_turned_goes_counter_clockwise():
    from lstm_jax.data.synthetic.digits import turned

    scan = np.zeros((8, 8), np.uint8)
    scan[3:5, 6] = 255  # a mark on the right goes up
    row, _ = np.unravel_index(turned(scan, 45.0).argmax(), (16, 16))
    assert row < 6


def test_from_the_cache_needs_neither_tfds_nor_tensorflow(cache):
    load("digits", data_dir=cache)
    program = (
        "import sys; import lstm_jax.data as d\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        f"d.load('digits', data_dir={str(cache)!r})\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        "assert 'tensorflow' not in sys.modules and 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.mark.process
def test_tensorflow_is_never_imported_while_preparing(tmp_path):
    write_mnist(tmp_path / "manual")
    program = (
        "import sys; import lstm_jax.data as d\n"
        "for name in ('digits', 'digits_angle', 'mnist'):\n"
        f"    d.load(name, data_dir={str(tmp_path / 'cache')!r}, "
        f"manual_dir={str(tmp_path / 'manual')!r})\n"
        "assert 'tensorflow' not in sys.modules"
    )
    out = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert out.stdout == ""  # tfds's own chatter is kept away


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist"])
def test_idx_files_by_hand(tmp_path, name, packed):
    arrays = write_mnist(tmp_path / "manual", packed=packed)
    data = load(name, data_dir=tmp_path / "c", manual_dir=tmp_path / "manual")
    assert len(data.classes) == 10 and data.image_shape == (28, 28, 1)
    assert rows(data.splits["test"].inputs) == rows(arrays["t10k"])
    both = [*data.splits["train"].inputs, *data.splits["validation"].inputs]
    assert rows(both) == rows(arrays["train"])
    assert len(data.splits["validation"].inputs) == 10  # one of each class, at least
    for split in data.splits.values():
        np.testing.assert_array_equal(split.inputs[:, 0, 0, 0], split.targets)
    if packed:
        assert "differs from the published file" in data.notes[0]
    # Once prepared, the files are not needed any more.
    again = load(name, data_dir=tmp_path / "c")
    assert rows(again.splits["test"].inputs) == rows(arrays["t10k"])
    assert not list((tmp_path / "c").rglob("*.gz"))


def test_other_files_by_hand_replace_what_was_prepared(tmp_path):
    write_mnist(tmp_path / "a")
    load("mnist", data_dir=tmp_path / "c", manual_dir=tmp_path / "a")
    arrays = write_mnist(tmp_path / "b", test=30, seed=5)
    data = load("mnist", data_dir=tmp_path / "c", manual_dir=tmp_path / "b")
    assert rows(data.splits["test"].inputs) == rows(arrays["t10k"])
    arrays = tmp_path / "c" / "arrays"
    assert len([*arrays.glob("mnist=*")]) == len([*arrays.glob("mnist-copies=*")]) == 1


def test_a_set_of_ours_of_another_version_is_prepared_anew(tmp_path):
    load("digits", data_dir=tmp_path)
    origin = next(tmp_path.glob("tfds/digits/origin.json"))
    known = json.loads(origin.read_text())
    load("digits", data_dir=tmp_path)
    assert json.loads(origin.read_text()) == known
    origin.write_text(json.dumps(known | {"version": "0.9.0"}))
    load("digits", data_dir=tmp_path)
    again = json.loads(origin.read_text())
    assert again["version"] == known["version"] and again["made"] != known["made"]


def test_size_resizes_to_a_square_and_is_cached_apart(tmp_path):
    write_mnist(tmp_path / "m")
    kw = dict(data_dir=tmp_path / "c", manual_dir=tmp_path / "m")
    assert load("mnist", size=14, **kw).image_shape == (14, 14, 1)
    assert load("mnist", **kw).image_shape == (28, 28, 1)


def add_file(tar, name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def cifar(path, folder, files, heads, names):
    images = {}
    with tarfile.open(path, "w:gz") as tar:
        for number, file in enumerate(files):
            labels = np.arange(20) % 10
            images[file] = images_of(labels, (32, 32, 3), seed=number)
            planes = images[file].transpose(0, 3, 1, 2).reshape(20, -1)
            head = np.tile(labels[:, None], heads).astype(np.uint8)
            add_file(tar, f"{folder}/{file}", np.hstack([head, planes]).tobytes())
        for file, count in names.items():
            text = "\n".join(f"c{i}" for i in range(count))
            add_file(tar, f"{folder}/{file}", text.encode())
    return images


def check_colour(data, train, test):
    assert data.image_shape == (32, 32, 3)
    assert rows(data.splits["test"].inputs) == rows(test)
    both = [*data.splits["train"].inputs, *data.splits["validation"].inputs]
    assert rows(both) == rows(train)
    for split in data.splits.values():
        np.testing.assert_array_equal(split.inputs[:, 0, 0, 0], split.targets)


def test_cifar10_from_its_archive(tmp_path):
    files = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    path = tmp_path / "cifar-10-binary.tar.gz"
    images = cifar(path, "cifar-10-batches-bin", files, 1, {"batches.meta.txt": 10})
    data = load("cifar10", data_dir=tmp_path / "c", manual_dir=tmp_path)
    assert data.classes == tuple(f"c{i}" for i in range(10))
    train = np.concatenate([images[f] for f in files[:5]])
    check_colour(data, train, images["test_batch.bin"])


def test_cifar100_from_its_archive(tmp_path):
    names = {"coarse_label_names.txt": 20, "fine_label_names.txt": 100}
    path = tmp_path / "cifar-100-binary.tar.gz"
    images = cifar(path, "cifar-100-binary", ["train.bin", "test.bin"], 2, names)
    data = load("cifar100", data_dir=tmp_path / "c", manual_dir=tmp_path)
    assert len(data.classes) == 100
    check_colour(data, images["train.bin"], images["test.bin"])


def test_svhn_from_its_matlab_files(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    labels = np.arange(20) % 10
    images = {}
    for number, name in enumerate(("train", "test", "extra")):
        images[name] = images_of(labels, (32, 32, 3), seed=number)
        y = np.where(labels == 0, 10, labels)[:, None]
        content = {"X": images[name].transpose(1, 2, 3, 0), "y": y}
        savemat(tmp_path / f"{name}_32x32.mat", content)
    data = load("svhn-cropped", data_dir=tmp_path / "c", manual_dir=tmp_path)
    check_colour(data, images["train"], images["test"])
    assert "not used: the split extra" in data.notes


def test_emnist_config_is_turned_upright(tmp_path):
    prefix = "emnist-balanced-"
    arrays = write_mnist(tmp_path / "gzip", prefix=prefix)
    with zipfile.ZipFile(tmp_path / "gzip.zip", "w") as archive:
        for path in (tmp_path / "gzip").iterdir():
            archive.write(path, f"gzip/{path.name}")
    data = load("emnist/balanced", data_dir=tmp_path / "c", manual_dir=tmp_path)
    assert len(data.classes) == 47 and "transposed" in " ".join(data.notes)
    upright = arrays["test"].swapaxes(1, 2)
    assert rows(data.splits["test"].inputs) == rows(upright)


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_fashion_mnist_from_debian(tmp_path):
    data = load("fashion_mnist", data_dir=tmp_path, manual_dir=DEBIAN)
    sizes = {name: len(split.inputs) for name, split in data.splits.items()}
    assert sizes == {"train": 54000, "validation": 6000, "test": 10000}
    assert data.classes[0] == "T-shirt/top" and data.classes[-1] == "Ankle boot"
    assert (np.bincount(data.splits["validation"].targets) == 600).all()
    raw = preparing.read_idx(DEBIAN / "t10k-images-idx3-ubyte.gz")
    assert rows(data.splits["test"].inputs) == rows(raw)


def test_no_network_names_every_file_and_leaves_nothing(tmp_path):
    with pytest.raises(DataError) as caught:
        load("kmnist", data_dir=tmp_path)
    text = str(caught.value)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3"):
        assert f"  {name}-ubyte.gz  http://codh.rois.ac.jp/kmnist" in text
    assert "--data.manual-dir=DIR" in text and "no route to codh.rois.ac.jp" in text
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    assert list((tmp_path / "tfds").iterdir()) == []


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder that mnist is downloaded from, over HTTP on this machine."""
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "www"
    arrays = write_mnist(folder)
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        from tensorflow_datasets.image_classification import mnist

        monkeypatch.setattr(
            mnist.MNIST, "URL", f"http://127.0.0.1:{server.server_port}/"
        )
        yield folder, arrays
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_download_over_http(tmp_path, served):
    _, arrays = served
    data = load("mnist", data_dir=tmp_path / "c")
    assert rows(data.splits["test"].inputs) == rows(arrays["t10k"])
    assert data.notes == () and not list((tmp_path / "c").rglob("*ubyte*"))


def test_a_file_that_is_gone_from_its_server(tmp_path, served):
    (served[0] / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match="HTTP code: 404") as caught:
        load("mnist", data_dir=tmp_path / "c")
    assert "  train-images-idx3-ubyte.gz  http://127.0.0.1" in str(caught.value)
    assert list((tmp_path / "c" / "tfds").iterdir()) == []


@pytest.mark.slow
def test_an_installed_tensorflow_is_not_imported(tmp_path):
    (tmp_path / "tensorflow").mkdir()
    init = tmp_path / "tensorflow" / "__init__.py"
    init.write_text("raise SystemExit('imported')")
    write_mnist(tmp_path / "m")
    program = (
        "import sys; import lstm_jax.data as d\n"
        "for name in ('digits', 'mnist'):\n"
        f"    d.load(name, data_dir={str(tmp_path / 'c')!r}, "
        f"manual_dir={str(tmp_path / 'm')!r})\n"
        "try:\n"
        f"    d.load('coco', data_dir={str(tmp_path / 'c')!r})\n"
        "except d.DataError as error:\n"
        "    assert 'without TensorFlow' in str(error), error\n"
        "assert 'tensorflow' not in sys.modules"
    )
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    env = dict(os.environ, PYTHONPATH=paths)
    subprocess.run([sys.executable, "-c", program], check=True, env=env, cwd=ROOT)


def test_a_host_that_never_answers_is_given_up_in_time(tmp_path, monkeypatch):
    given_up = threading.Event()

    def hang(address, timeout=None):
        given_up.wait(60)
        raise OSError("after everybody has left")

    monkeypatch.setattr(preparing.socket, "create_connection", hang)
    with pytest.raises(DataError, match="no response in 3 seconds"):
        load("mnist", data_dir=tmp_path)
    given_up.set()


def test_some_files_missing_says_where_it_looked(tmp_path):
    write_mnist(tmp_path / "m")
    (tmp_path / "m" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        load("mnist", data_dir=tmp_path / "c", manual_dir=tmp_path / "m")
    assert f"not all of them are in {tmp_path / 'm'}" in str(caught.value)
    assert "  t10k-labels-idx1-ubyte.gz  https://" in str(caught.value)
    assert "train-images" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-9], "train-images-idx3-ubyte.gz is damaged .*download it"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-5]), "but .* follow"),
        (lambda data: gzip.compress(b"<html>not found</html>"), "not an idx file"),
        (lambda data: gzip.compress(idx(np.zeros((7, 28, 28)))), "7 images, but 60"),
    ],
)
def test_damaged_idx_files(tmp_path, damage, words):
    write_mnist(tmp_path / "m")
    path = tmp_path / "m" / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"mnist: cannot be prepared: .*{words}"):
        load("mnist", data_dir=tmp_path / "c", manual_dir=tmp_path / "m")
    assert list((tmp_path / "c" / "tfds").iterdir()) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("fashion_mnits", "no data set of that name.*Similar: fashion_mnist"),
        ("qqqq", "For example: digits, digits_angle, mnist"),
        ("imdb_reviews", "features are text, label, expected image and label"),
        ("emnist/balance", "no config 'balance'; similar: balanced"),
        ("mnist/x", "no config 'x'; use mnist"),
        ("digits/x", "digits has no configs"),
        ("coco", "cannot be prepared without TensorFlow"),
        ("imagenet2012", "must be downloaded manually.*ILSVRC2012_img_train.tar"),
        ("./mnist", "no such file or folder"),
        ("my/pictures.csv", "no such file or folder"),
        ("", "no data set named"),
    ],
)
def test_what_cannot_be_loaded_says_so(tmp_path, source, words):
    with pytest.raises(DataError, match=words) as caught:
        load(source, data_dir=tmp_path)
    assert len(str(caught.value)) < 500  # not tfds's whole catalogue


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(validation=0.0), "validation is a share between 0 and 1; got 0.0"),
        (dict(validation=1.5), "got 1.5"),
        (dict(size=0), "size is a whole number of pixels, at least 1; got 0"),
        (dict(seed=-1), "seed is at least 0; got -1"),
        (dict(manual_dir="/nowhere/x"), "manual-dir=/nowhere/x: no such folder"),
    ],
)
def test_options_out_of_range(tmp_path, options, words):
    with pytest.raises(DataError, match=words):
        load("digits", data_dir=tmp_path, **options)


def test_too_large_to_hold_is_refused_before_decoding(tmp_path, cache, monkeypatch):
    load("digits", data_dir=cache)
    monkeypatch.setattr(decoding, "LARGEST", 1 << 20)
    with pytest.raises(DataError, match="give a smaller --data.size"):
        load("digits", data_dir=cache, size=64)


def test_a_missing_package_is_named():
    cause = ModuleNotFoundError("No module named 'pandas'", name="pandas")
    assert "pip install pandas" in str(builders._cannot("x", cause))


def test_without_tfds_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match="pip install tensorflow-datasets"):
        builders._import_tfds()
