"""Photographs and slides by name: tfds builders fed with small made-up archives.

Each archive has the layout of the published one. An image is plain, of a brightness
that tells its class, so that labels can be checked after JPEG and after resizing.
"""

import gzip
import io
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import load, read_image
from lstm_jax.data.tfds import preparing
from lstm_jax.data.tfds.decoding import decode_all

TILES = "Kather_texture_2016_image_tiles_5000"
TISSUES = "tumor stroma complex lympho debris mucosa adipose empty".split()
PLACES = (
    "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop "
    "Residential River SeaLake"
).split()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(address, timeout=None):
        raise OSError(f"no route to {address[0]}")

    monkeypatch.setattr(preparing.socket, "create_connection", refuse)


def shade(k, classes):
    """The brightness of class k."""
    return 20 + 200 * k // max(classes - 1, 1)


def picture(k, classes, form="JPEG", size=(40, 30)):
    file = io.BytesIO()
    Image.new("RGB", size, (shade(k, classes),) * 3).save(file, form)
    return file.getvalue()


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)


def tarred(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def histology(folder):
    tile = dict(form="TIFF", size=(150, 150))
    files = [
        (f"{TILES}/{k + 1:02}_{name.upper()}/{n}.tif", picture(k, 8, **tile))
        for k, name in enumerate(TISSUES)
        for n in range(6)
    ]
    zipped(folder / f"{TILES}.zip", files)
    return TISSUES, 48


def malaria(folder):
    files = [
        (f"cell_images/{name}/{n}.png", picture(k, 2, "PNG", (30 + n, 40)))
        for k, name in enumerate(("Parasitized", "Uninfected"))
        for n in range(10)
    ]
    zipped(folder / "cell_images.zip", [*files, ("cell_images/Thumbs.db", b"no")])
    return ["parasitized", "uninfected"], 20


def flowers(folder):
    names = ["dandelion", "daisy", "tulips", "sunflowers", "roses"]
    files = [
        (f"flower_photos/{name}/{n}.jpg", picture(k, 5, size=(40 + n, 30)))
        for k, name in enumerate(names)
        for n in range(6)
    ]
    files.append(("flower_photos/LICENSE.txt", b"by many"))
    tarred(folder / "flower_photos.tgz", files)
    return names, 30


def satellite(folder):
    files = [
        (f"2750/{name}/{name}_{n + 1}.jpg", picture(k, 10, size=(64, 64)))
        for k, name in enumerate(PLACES)
        for n in range(5)
    ]
    zipped(folder / "EuroSAT.zip", files)
    return PLACES, 50


def land_use(folder):
    names = "agricultural airplane baseballdiamond".split()
    files = [
        (f"UCMerced_LandUse/Images/{name}/{name}{n:02}.tif", picture(k, 21, "TIFF"))
        for k, name in enumerate(names)
        for n in range(6)
    ]
    zipped(folder / "UCMerced_LandUse.zip", files)
    return None, 18


def leaves(folder):
    names = ["angular_leaf_spot", "bean_rust", "healthy"]
    for split in ("train", "validation", "test"):
        files = [
            (f"{split}/{name}/{n}.jpg", picture(k, 3, size=(500, 500)))
            for k, name in enumerate(names)
            for n in range(2)
        ]
        zipped(folder / f"{split}.zip", files)
    return names, 18


def flowers_of_oxford(folder):
    savemat = pytest.importorskip("scipy.io").savemat
    labels = np.tile(np.arange(1, 103), 3)
    files = [
        (f"jpg/image_{n + 1:05}.jpg", picture(k - 1, 102)) for n, k in enumerate(labels)
    ]
    tarred(folder / "102flowers.tgz", files)
    savemat(folder / "imagelabels.mat", {"labels": labels[None]})
    ids = np.arange(1, 307)[None]
    splits = dict(trnid=ids[:, :102], valid=ids[:, 102:204], tstid=ids[:, 204:])
    savemat(folder / "setid.mat", splits)
    return None, 306


def lymph_nodes(folder):
    h5py = pytest.importorskip("h5py")
    for name in ("train", "valid", "test"):
        targets = np.arange(8) % 2
        shades = np.asarray([shade(k, 2) for k in targets], np.uint8)
        images = np.broadcast_to(shades[:, None, None, None], (8, 96, 96, 3))
        for key, values in (("x", images), ("y", targets.reshape(8, 1, 1, 1))):
            path = folder / "plain.h5"
            with h5py.File(path, "w") as file:
                file[key] = values
            packed = f"camelyonpatch_level_2_split_{name}_{key}.h5.gz"
            (folder / packed).write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    return ["0", "1"], 24


SETS = {
    "colorectal_histology": histology,
    "malaria": malaria,
    "tf_flowers": flowers,
    "eurosat": satellite,
    "oxford_flowers102": flowers_of_oxford,
    "patch_camelyon": lymph_nodes,
    "uc_merced": land_use,
    "beans": leaves,
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_photographs_from_its_archives(name, tmp_path):
    folder = tmp_path / "fetched"
    folder.mkdir()
    names, count = SETS[name](folder)
    options = dict(data_dir=tmp_path / "cache", size=24)
    found = load(name, manual_dir=folder, validation=0.2, **options)
    assert found.image_shape == (24, 24, 3)
    assert names is None or list(found.classes) == names
    assert sum(len(split.inputs) for split in found.splits.values()) == count
    for split in found.splits.values():
        assert len(split.inputs)
        wanted = [shade(k, len(found.classes)) for k in split.targets]
        means = split.inputs.astype(float).mean((1, 2, 3))
        # 2 of the 256 levels: JPEG's rounding of a plain colour
        np.testing.assert_allclose(means, wanted, atol=2)
    again = load(name, validation=0.2, **options)  # prepared, no file is needed
    np.testing.assert_array_equal(
        again.splits["test"].inputs, found.splits["test"].inputs
    )


@pytest.mark.parametrize(("dtype", "depth"), [(np.uint8, None), (np.uint16, 16)])
def test_images_of_16_bits_are_scaled_by_all_bits_and_predictions_too(
    tmp_path, dtype, depth
):
    """Although they may use 12 of them, as tfds itself scales them."""
    deep = np.full((8, 8), 4095 if depth else 200, dtype)
    Image.fromarray(deep).save(tmp_path / "1.png")
    example = {"image": (tmp_path / "1.png").read_bytes(), "label": 1}
    source = [example] * 3
    features = {
        "image": SimpleNamespace(shape=(8, 8, 1), np_dtype=dtype),
        "label": SimpleNamespace(names=["a", "b"]),
    }
    splits = {"train": SimpleNamespace(num_examples=3)}
    builder = SimpleNamespace(
        name="deep",
        info=SimpleNamespace(features=features, splits=splits),
        as_data_source=lambda split, decoders: Blocks(source),
    )
    facts = decode_all(builder, "deep", None, None, "uniform", tmp_path)
    assert facts["depth"] == depth
    inputs = np.load(tmp_path / "train_inputs.npy")
    assert (inputs == (16 if depth else 200)).all()
    seen = read_image(tmp_path / "1.png", (8, 8, 1), facts["depth"])
    np.testing.assert_array_equal(seen, inputs[0])


class Blocks(list):
    def __getitems__(self, numbers):
        return [self[k] for k in numbers]
