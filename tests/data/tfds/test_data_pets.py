"""Masks of photographs by name: tfds's builder fed with a small made-up archive."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import DataError, load
from lstm_jax.data.tfds import preparing

# background, pet and border, as the archive numbers them
BACKGROUND, PET, BORDER = 2, 1, 3


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(address, timeout=None):
        raise OSError(f"no route to {address[0]}")

    monkeypatch.setattr(preparing.socket, "create_connection", refuse)


def encoded(image, form):
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def tarred(path, files):
    with tarfile.open(path, "w") as archive:  # as published: .gz in name only
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def fetched(tmp_path):
    """Pets of 40x20 whose left quarter is bright; beagle_116 is one that is mended."""
    folder = tmp_path / "fetched"
    folder.mkdir()
    pixels, trimap = np.full((20, 40, 3), 20, np.uint8), np.full((20, 40), BACKGROUND)
    pixels[:, :10] = 220
    trimap[:, :10], trimap[:, 10:12], trimap[0, 39] = PET, BORDER, 0
    image = encoded(Image.fromarray(pixels), "JPEG")
    mask = encoded(Image.fromarray(trimap.astype(np.uint8)), "PNG")
    names = [f"beagle_{n}" for n in range(110, 122)]
    tarred(folder / "images.tar.gz", {f"images/{n}.jpg": image for n in names})
    lists = {"trainval": names[:8], "test": names[8:]}
    files = {f"annotations/trimaps/{n}.png": mask for n in names}
    for name, inside in lists.items():
        lines = "".join(f"{n} 5 2 1\n" for n in inside)
        files[f"annotations/{name}.txt"] = lines.encode()
    tarred(folder / "annotations.tar.gz", files)
    return folder


def test_trimaps_are_classes_of_pixels(fetched, tmp_path):
    options = dict(data_dir=tmp_path / "cache", size=20)
    data = load("oxford_iiit_pet", manual_dir=fetched, target_type="masks", **options)
    assert data.target_type == "masks" and data.image_shape == (20, 20, 3)
    assert data.classes == ("background", "pet", "border")
    assert [len(s.inputs) for s in data.splits.values()] == [7, 1, 4]
    for split in data.splits.values():
        assert split.targets.dtype == np.uint8
        for mask, image in zip(split.targets, split.inputs, strict=True):
            assert (mask[:, :5] == 1).all() and (mask[:, 5] == 2).all()
            assert (mask[1:, 6:] == 0).all() and mask[0, 19] == 255
            assert image[:, :4].min() > 180 and image[:, 8:].max() < 60
    breeds = load("oxford_iiit_pet", **options)  # prepared once for both
    assert breeds.target_type == "labels" and set(breeds.splits["test"].targets) == {4}
    with pytest.raises(DataError, match="oxford_iiit_pet: has no boxes that this libr"):
        load("oxford_iiit_pet", target_type="boxes", **options)
