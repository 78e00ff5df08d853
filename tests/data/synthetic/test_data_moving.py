"""Videos of moving objects: what the frames show, and how the sets load."""

import gzip
import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import DataError, load
from lstm_jax.data.synthetic import moving
from lstm_jax.data.synthetic.builders import BUILDERS
from lstm_jax.data.tfds import builders, preparing

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test reaches out, on whatever machine it runs."""

    def refuse(address, timeout=None):
        raise OSError(f"no route to {address[0]}")

    monkeypatch.setattr(preparing.socket, "create_connection", refuse)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Forty videos to train on and ten to test on, of every kind."""
    few = {name: {"train": 40, "test": 10} for name in moving.NUMBERS}
    monkeypatch.setattr(moving, "NUMBERS", few)


@pytest.fixture(scope="module")
def stills():
    return moving.digit_stills()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def marked(split="test"):
    """One still that fills its box, so that a frame shows exactly where it is."""
    images = np.full((1, 28, 28), 200, np.uint8)
    return moving.Stills({split: images}, {split: np.array([3])})


def centre(frame):
    """(x, y) of the centre of mass of a frame [H, W, 1], pixels."""
    rows, columns = np.indices(frame.shape[:2])
    mass = frame[..., 0].astype(float)
    return np.array([(columns * mass).sum(), (rows * mass).sum()]) / mass.sum()


def bounced_plainly(start, velocity):
    """The published loop over frames, both axes at once."""
    (x, y), (v_x, v_y) = start, velocity
    track = []
    for _ in range(20):
        y += v_y
        x += v_x
        if x <= 0:
            x, v_x = 0, -v_x
        if x >= 1:
            x, v_x = 1, -v_x
        if y <= 0:
            y, v_y = 0, -v_y
        if y >= 1:
            y, v_y = 1, -v_y
        track.append((x, y))
    return np.array(track)


def test_bounce_is_the_published_loop():
    rng = np.random.default_rng(0)
    for _ in range(200):
        start, angle = rng.random(2), rng.uniform(0, 2 * np.pi)
        velocity = 0.1 * np.array([np.cos(angle), np.sin(angle)])
        positions, velocities = moving.bounce(start, velocity)
        np.testing.assert_array_equal(positions, bounced_plainly(start, velocity))
        assert positions.min() >= 0 and positions.max() <= 1
        np.testing.assert_array_equal(np.abs(velocities), np.abs([velocity] * 20))
        free = ((positions[1:] > 0) & (positions[1:] < 1)).all(-1)
        np.testing.assert_allclose(
            np.diff(positions, axis=0)[free], velocities[1:][free]
        )


def test_composed_takes_the_larger_pixel_inside_the_frame():
    images = np.stack([np.full((28, 28), v, np.uint8) for v in (90, 200)])
    positions = np.zeros((2, 20, 2))
    positions[1] = 10.9 / 36  # cut to a whole pixel: 10
    positions[:, -1] = 1.0
    frames = moving.composed(images, positions)
    assert frames.shape == (20, 64, 64, 1) and frames.dtype == np.uint8
    wanted = np.zeros((64, 64), np.uint8)
    wanted[:28, :28] = 90
    wanted[10:38, 10:38] = 200
    np.testing.assert_array_equal(frames[0, ..., 0], wanted)
    np.testing.assert_array_equal(
        frames, moving.composed(images[::-1], positions[::-1])
    )
    assert (frames[-1, 36:, 36:] == 200).all() and frames[-1].sum() == 200 * 28**2


def test_an_object_goes_at_3_6_pixels_a_frame_and_stays_whole():
    for index in range(50):
        video = moving.example(marked(), "test", index, objects=1)
        assert (video["frames"].sum((1, 2, 3), dtype=int) == 200 * 28**2).all()
        (velocity,) = video["velocities"]
        assert np.hypot(*velocity) == pytest.approx(3.6, rel=1e-6)
        step = centre(video["frames"][1]) - centre(video["frames"][0])
        # Cutting to whole pixels moves either end by less than one; a wall stops it.
        walled = ({0, 36} & set((centre(video["frames"][1]) - 13.5).round())) != set()
        assert walled or np.abs(step - velocity).max() < 1


def test_a_video_follows_from_its_seed_split_and_index_alone(stills):
    def frames(*args, **kwargs):
        return moving.example(stills, *args, objects=2, **kwargs)["frames"]

    forth = [frames("train", i) for i in range(4)]
    back = [frames("train", i) for i in reversed(range(4))][::-1]
    np.testing.assert_array_equal(forth, back)
    others = [frames("test", 0), frames("train", 0, seed=1), *forth[1:]]
    for other in others:
        assert (other != forth[0]).any()


def test_the_first_videos_to_test_on_are_these(stills):
    digest = hashlib.sha256()
    for index in range(8):
        video = moving.example(stills, "test", index, objects=2)
        digest.update(video["frames"].tobytes())
        digest.update(video["contents"].astype(np.uint8).tobytes())
    assert digest.hexdigest()[:16] == "a510640a58433659"


def test_stills_of_test_are_never_trained_on(stills):
    sets = {k: {image.tobytes() for image in v} for k, v in stills.images.items()}
    assert len(sets["train"]) == 1437 and len(sets["test"]) == 360
    assert not sets["train"] & sets["test"]
    for split, images in stills.images.items():
        assert images.shape[1:] == (28, 28) and images.dtype == np.uint8
        assert len(stills.labels[split]) == len(images)
        assert not images[:, :4].any() and not images[:, :, -4:].any()
    # A video to test on shows stills of that split only.
    only = moving.Stills(
        {"test": stills.images["test"]}, {"test": stills.labels["test"]}
    )
    for index in range(5):
        one = moving.example(only, "test", index, objects=2)
        two = moving.example(stills, "test", index, objects=2)
        np.testing.assert_array_equal(one["frames"], two["frames"])


def test_objects_are_listed_from_left_to_right():
    images = np.stack([np.full((28, 28), v, np.uint8) for v in range(20, 220, 20)])
    ten = moving.Stills({"test": images}, {"test": np.arange(10)})
    for index in range(40):
        video = moving.example(ten, "test", index, objects=2)
        lefts = [
            np.flatnonzero((video["frames"][0] == 20 * (c + 1)).any((0, 2)))
            for c in video["contents"]
        ]
        larger = int(np.argmax(video["contents"]))  # the other one may be hidden
        if lefts[1 - larger].size:
            assert lefts[0].min() <= lefts[1].min()


def test_motion_is_the_way_that_the_frames_show(stills):
    east = np.array([1.0, 0.0])
    assert moving.DIRECTIONS[moving.direction(east)] == "east"
    assert moving.DIRECTIONS[moving.direction(np.array([0.0, -1.0]))] == "north"
    assert moving.DIRECTIONS[moving.direction(np.array([-2.0, 2.0]))] == "south-west"
    seen = set()
    for index in range(100):
        video = moving.example(stills, "train", index, objects=1, clear=5)
        shown = centre(video["frames"][4]) - centre(video["frames"][0])
        velocity = video["velocities"][0]
        np.testing.assert_allclose(shown, 4 * velocity, atol=1)  # whole pixels
        label = moving.direction(velocity)
        seen.add(label)
        away = np.degrees(np.arctan2(-shown[1], shown[0])) - 45 * label
        assert abs((away + 180) % 360 - 180) < 22.5 + 6  # a pixel in 14 is 6 degrees
    assert seen == set(range(8))


def test_moving_digits_loads(cache, stills):
    data = load("moving-digits", data_dir=cache)
    assert data.name == "moving_digits" and data.classes == () and data.notes == ()
    assert data.image_shape == (20, 64, 64, 1)
    sizes = {name: len(split.inputs) for name, split in data.splits.items()}
    assert sizes == {"train": 36, "validation": 4, "test": 10}
    for split in data.splits.values():
        assert split.inputs.dtype == np.uint8 and split.targets.dtype == np.float32
        assert split.targets.shape == (len(split.inputs), 4)
    for index in range(10):
        video = moving.example(stills, "test", index, objects=2)
        test = data.splits["test"]
        np.testing.assert_array_equal(test.inputs[index], video["frames"])
        np.testing.assert_array_equal(test.targets[index], video["velocities"].ravel())
    made = {
        video["frames"].tobytes(): video["velocities"].ravel().tolist()
        for video in (moving.example(stills, "train", i, objects=2) for i in range(40))
    }
    for name in ("train", "validation"):  # every one is there, with its own targets
        split = data.splits[name]
        for frames, target in zip(split.inputs, split.targets, strict=True):
            assert made.pop(frames.tobytes()) == target.tolist()
    assert not made


def test_the_default_config_by_its_name_is_the_same_set(cache):
    load("moving_digits", data_dir=cache)
    before = sorted((cache / "tfds").iterdir())
    data = load("moving_digits/Digits", data_dir=cache)
    assert data.name == "moving_digits"
    assert sorted((cache / "tfds").iterdir()) == before


def test_size_resizes_every_frame_as_images_are(cache):
    small = load("moving_digits", size=32, data_dir=cache)
    large = load("moving_digits", data_dir=cache)
    assert small.image_shape == (20, 32, 32, 1)
    frame = Image.fromarray(large.splits["test"].inputs[3, 7, ..., 0])
    wanted = np.asarray(frame.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(small.splits["test"].inputs[3, 7, ..., 0], wanted)


def test_from_the_cache_needs_no_tfds(cache):
    load("moving_digits", data_dir=cache)
    assert any(p.suffix == ".npy" for p in (cache / "arrays").rglob("*"))
    program = (
        "import sys; import lstm_jax.data as d\n"
        f"d.load('moving_digits', data_dir={str(cache)!r})\n"
        "assert 'tensorflow_datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_moving_digit_by_content_and_by_motion_shows_the_same_videos(cache, stills):
    content = load("moving_digit", data_dir=cache)
    motion = load("moving_digit/motion", data_dir=cache)
    assert content.classes == tuple("0123456789")
    assert motion.classes == moving.DIRECTIONS and motion.name == "moving_digit/motion"
    for data in (content, motion):
        assert data.image_shape == (20, 64, 64, 1)
        assert sum(len(s.inputs) for s in data.splits.values()) == 50
        assert {s.targets.dtype for s in data.splits.values()} == {np.dtype(np.int32)}
    tests = content.splits["test"], motion.splits["test"]
    np.testing.assert_array_equal(tests[0].inputs, tests[1].inputs)
    for index in range(10):
        video = moving.example(stills, "test", index, objects=1, clear=5)
        assert tests[0].targets[index] == video["contents"][0]
        assert tests[1].targets[index] == moving.direction(video["velocities"][0])


def test_the_configs_that_are_refused_or_taken_are_those_of_the_builders():
    for name, configs in builders.VIDEOS.items():
        assert tuple(c.name for c in BUILDERS[name].BUILDER_CONFIGS) == configs


def write_idx(folder, seed=0):
    """Twenty clothes for training, dark, and ten for testing, light."""
    folder.mkdir()
    for name, n, value in (("train", 20, 50), ("t10k", 10, 250)):
        rng = np.random.default_rng(seed)
        images = rng.integers(value - 5, value, (n, 28, 28)).astype(np.uint8)
        for kind, array in (
            ("images-idx3", images),
            ("labels-idx1", (np.arange(n) % 10).astype(np.uint8)),
        ):
            shape = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            path = folder / f"{name}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(shape + array.tobytes()))


def test_clothes_come_from_the_set_that_is_prepared_beside(tmp_path):
    write_idx(tmp_path / "m")
    kw = dict(data_dir=tmp_path / "c")
    data = load("moving_digits/fashion-mnist", manual_dir=tmp_path / "m", **kw)
    assert data.name == "moving_digits/fashion_mnist"
    assert any("differs from the published" in note for note in data.notes)
    names = sorted(path.name for path in (tmp_path / "c" / "tfds").iterdir())
    assert names == ["fashion_mnist", "moving_digits@fashion_mnist"]
    assert data.splits["train"].inputs.max() < 50
    assert data.splits["validation"].inputs.max() < 50
    assert data.splits["test"].inputs.max(axis=(1, 2, 3, 4)).min() >= 245
    # Prepared, it needs the files no more; other files replace it.
    again = load("moving_digits/fashion_mnist", **kw)
    one, two = data.splits["test"].inputs, again.splits["test"].inputs
    np.testing.assert_array_equal(one, two)
    write_idx(tmp_path / "n", seed=1)
    other = load("moving_digits/fashion_mnist", manual_dir=tmp_path / "n", **kw)
    assert (other.splits["test"].inputs != one).any()


def test_scans_of_the_sheet(tmp_path):
    sheet = np.zeros((50, 20, 100, 20), np.uint8)
    sheet[...] = (np.arange(50) // 5 * 20 + 30)[:, None, None, None]
    sheet[:, 0, :, 0] = np.arange(5000).reshape(50, 100) % 251  # tells them apart
    Image.fromarray(sheet.reshape(1000, 2000)).save(tmp_path / "digits.png")
    stills = moving.scan_stills(tmp_path / "digits.png")
    for split, number in (("train", 4000), ("test", 1000)):
        images, labels = stills.images[split], stills.labels[split]
        assert images.shape == (number, 28, 28)
        np.testing.assert_array_equal(np.bincount(labels), np.full(10, number // 10))
        np.testing.assert_array_equal(images[:, 14, 14], labels * 20 + 30)
        assert not images[:, :4].any() and images[:, 5, 4:24].all()
    corners = np.concatenate([stills.images[k][:, 4, 4] for k in ("train", "test")])
    np.testing.assert_array_equal(np.sort(corners), np.sort(np.arange(5000) % 251))
    kw = dict(data_dir=tmp_path / "c")
    data = load("moving_digits/scans", manual_dir=tmp_path, **kw)
    assert data.image_shape == (20, 64, 64, 1)
    assert len(load("moving_digits/scans", **kw).splits["test"].inputs) == 10


def test_a_sheet_of_another_size_or_none(tmp_path):
    with pytest.raises(DataError, match="digits.png; Debian's package opencv-doc"):
        load("moving_digits/scans", data_dir=tmp_path / "c")
    (tmp_path / "m").mkdir()
    kw = dict(data_dir=tmp_path / "c", manual_dir=tmp_path / "m")
    with pytest.raises(DataError, match=f"it is not in {tmp_path / 'm'}"):
        load("moving_digits/scans", **kw)
    Image.new("L", (30, 20)).save(tmp_path / "m" / "digits.png")
    with pytest.raises(DataError, match="30x20 pixels; expected 2000x1000"):
        load("moving_digits/scans", **kw)
    (tmp_path / "m" / "digits.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable image"):
        load("moving_digits/scans", **kw)
    assert not list((tmp_path / "c").rglob("*.*"))


def test_no_network_gives_the_same_list_as_the_still_set(tmp_path):
    told = []
    for source in ("mnist", "moving_digits/mnist"):
        with pytest.raises(DataError) as caught:
            load(source, data_dir=tmp_path)
        told.append(str(caught.value))
    assert told[0] == told[1] and "Download manually" in told[1]
    assert "  t10k-labels-idx1-ubyte.gz  https://" in told[1]
    assert list((tmp_path / "tfds").iterdir()) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("moving_digits/minst", "^moving_digits/minst: .* 'minst'; similar: mnist$"),
        ("moving_digits/x", "it has digits, mnist, fashion_mnist, scans$"),
        ("moving_digit/motoin", "similar: motion$"),
        ("moving_digts", "Similar: moving_digits, moving_digit"),
    ],
)
def test_what_cannot_be_loaded_says_so_in_a_line(tmp_path, source, words):
    with pytest.raises(DataError, match=words) as caught:
        load(source, data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_rows_are_taken_within_the_array_or_out_of_a_mapped_one(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5000, 3)).astype(np.uint8)
    rows = np.flatnonzero(np.random.default_rng(1).random(5000) < 0.9)
    wanted = images[rows]
    np.save(tmp_path / "a.npy", images)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    np.testing.assert_array_equal(builders._gather(mapped, rows), wanted)
    taken = builders._gather(images, rows)
    np.testing.assert_array_equal(taken, wanted)
    assert taken.base is images
