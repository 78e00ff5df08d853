"""Stock sets of clips by name, without TensorFlow, from small made-up builders."""

import io
import itertools
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from lstm_jax.data import DataError, load
from lstm_jax.data.tfds import preparing

ROOT = Path(__file__).parents[3]
SIDE = 8
STEPS = (5, 3, 9, 4, 6, 5, 7, 3)  # frames of a clip, by its number


def clip(number, split, steps=None):
    """Frames whose pixels tell the split, the clip and the step: 64, 4 and 1 each."""
    steps = STEPS[number % len(STEPS)] if steps is None else steps
    ground = 64 * ("train", "validation", "test").index(split) + 4 * (number % 8)
    frames = np.arange(steps, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(frames + np.uint8(ground), (steps, SIDE, SIDE, 3))


class FilmsWithClasses(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "video": tfds.features.Video(shape=(None, SIDE, SIDE, 3)),
            "label": tfds.features.ClassLabel(names=["still", "moving"]),
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, manager):
        return {"train": self._examples(8, "train"), "test": self._examples(4, "test")}

    def _generate_examples(self):
        raise NotImplementedError

    def _examples(self, count, split):
        for n in range(count):
            yield n, {"video": clip(n, split), "label": n % 2, "name": f"{split} {n}"}


class FilmsAlone(FilmsWithClasses):
    """No classes; frames of the sizes that they have, and all splits."""

    def _info(self):
        video = tfds.features.Video(shape=(4, None, None, 1))
        features = tfds.features.FeaturesDict({"image_sequence": video})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        splits = ("train", "validation", "test")
        return {split: self._examples(4, split) for split in splits}

    def _examples(self, count, split):
        for n in range(count):
            yield n, {"image_sequence": list(clip(n, split, 4)[..., :1])}


class FilmsNested(FilmsWithClasses):
    """As in the sets of robots and of segments: one of several sequences."""

    def _info(self):
        image = tfds.features.Image
        steps = {
            "segments": image(shape=(SIDE, SIDE, 1), use_colormap=True),
            "image_main": image(shape=(SIDE, SIDE, 3)),
            "image_aux": image(shape=(SIDE, SIDE, 3)),
            "action": tfds.features.Tensor(shape=(4,), dtype=np.float32),
        }
        features = {"video": tfds.features.Sequence(steps), "count": np.int64}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, manager):
        return {"train": self._examples(8, "train")}

    def _examples(self, count, split):
        for n in range(count):
            steps = [
                {
                    "segments": np.zeros((SIDE, SIDE, 1), np.uint8),
                    "image_main": frame,
                    "image_aux": 255 - frame,
                    "action": np.zeros(4, np.float32),
                }
                for frame in clip(n, split)
            ]
            yield n, {"video": steps, "count": len(steps)}


class FilmsFromFiles(FilmsWithClasses):
    """Yields the path of a video, which stock tfds gives to ffmpeg."""

    file = None  # set by the test

    def _examples(self, count, split):
        for n in range(count):
            yield n, {"video": str(self.file), "label": n % 2, "name": ""}


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(address, timeout=None):
        raise OSError(f"no route to {address[0]}")

    monkeypatch.setattr(preparing.socket, "create_connection", refuse)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def of_pixels(inputs):
    """(split, clip, steps) of every example, as its first pixels tell."""
    values = inputs[:, :, 0, 0, 0].astype(int)
    return values[:, 0] // 64, values[:, 0] % 64 // 4, values % 4


def test_a_video_with_classes_becomes_clips(cache):
    found = load("films_with_classes", data_dir=cache, frames=4, sampling="start")
    assert found.classes == ("still", "moving") and found.image_shape == (4, 8, 8, 3)
    assert "tensorflow" not in sys.modules
    everywhere = set()
    for name, split in found.splits.items():
        assert split.inputs.dtype == np.uint8 and split.targets.dtype == np.int32
        numbers = split.inputs[:, 0, 0, 0, 0] // 4
        place = 2 if name == "test" else 0
        for number, example, length, target in zip(
            numbers, split.inputs, split.lengths, split.targets, strict=True
        ):
            which = int(number) % 16
            assert number // 16 == place and target == which % 2
            assert length == min(STEPS[which], 4)
            want = clip(which, ("train", "", "test")[place])[:length]
            np.testing.assert_array_equal(example[:length], want)
            assert not example[length:].any()
            everywhere.add((place, which))
    assert everywhere == {(0, n) for n in range(8)} | {(2, n) for n in range(4)}


def test_frames_are_spread_and_resized(cache):
    found = load("films_with_classes", data_dir=cache, frames=3, size=4)
    assert found.image_shape == (3, 4, 4, 3)
    assert found.splits["train"].lengths is None  # none is shorter than three
    for example in found.splits["test"].inputs:
        number = example[0, 0, 0, 0] % 64 // 4
        steps = example[:, 0, 0, 0] - example[0, 0, 0, 0]
        last = STEPS[number] - 1
        assert steps.tolist() == [0, last // 2, last]


def test_windows_of_a_clip_stay_in_one_split(cache):
    found = load(
        "films_with_classes",
        data_dir=cache,
        frames=3,
        sampling="windows",
        validation=0.3,
    )
    train, validation, test = (s.inputs.astype(int) for s in found.splits.values())
    assert len(test) == sum(-(-n // 3) for n in STEPS[:4])
    assert len(train) + len(validation) == sum(-(-n // 3) for n in STEPS)
    # A window of frames 3 and up of a clip begins where its first window says.
    clips = []
    for split in (train, validation):
        firsts = split[:, 0, 0, 0, 0]
        own = {n for n in range(8) if 4 * n in firsts}
        starts = sorted(4 * n + at for n in own for at in range(0, STEPS[n], 3))
        assert sorted(firsts) == starts
        clips.append(own)
    assert not clips[0] & clips[1] and clips[0] | clips[1] == set(range(8))


def test_clips_without_classes_are_grey_and_of_the_sets_own_length(cache):
    found = load("films_alone", data_dir=cache, size=SIDE)
    assert found.classes == () and found.image_shape == (4, SIDE, SIDE, 1)
    for place, (_, split) in enumerate(found.splits.items()):
        assert (split.targets == -1).all() and split.targets.dtype == np.int32
        assert split.lengths is None
        grounds = sorted(split.inputs[:, 0, 0, 0, 0].tolist())
        assert grounds == [64 * place + 4 * n for n in range(4)]
    other = load("films_alone", data_dir=cache)
    assert other.image_shape == (4, 64, 64, 1)
    assert "frames of several sizes: all resized to 64x64" in other.notes[0]


def test_one_of_several_sequences_is_read_and_said(cache):
    found = load("films_nested", data_dir=cache, frames=3, sampling="start")
    assert found.image_shape == (3, SIDE, SIDE, 3) and found.classes == ()
    notes = " ".join(found.notes)
    assert "clips are its video/image_main" in notes
    assert "not used: video/image_aux, video/segments" in notes
    assert "20 % of train is held out" in notes
    numbers = [
        int(x) // 4 for s in found.splits.values() for x in s.inputs[:, 0, 0, 0, 0]
    ]
    assert sorted(numbers) == list(range(8))


def test_prepared_once_and_read_in_a_process_of_its_own(cache):
    load("films_with_classes", data_dir=cache, frames=4, sampling="start")
    program = (
        "import sys; import lstm_jax.data as d\n"
        f"found = d.load('films_with_classes', data_dir={str(cache)!r}, frames=4, "
        "sampling='start')\n"
        "assert found.image_shape == (4, 8, 8, 3)\n"
        "assert 'tensorflow_datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


@pytest.fixture
def film(tmp_path):
    """A video of six grey levels, 20 apart."""
    av = pytest.importorskip("av")
    path = tmp_path / "film.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=5)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "bgr0"
        for level in range(0, 120, 20):
            pixels = np.full((SIDE, SIDE, 3), level, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_video_files_are_read_by_pyav_where_there_is_no_ffmpeg(
    tmp_path, film, monkeypatch
):
    monkeypatch.setattr(FilmsFromFiles, "file", film)
    monkeypatch.setattr(shutil, "which", lambda name, *rest: None)
    found = load("films_from_files", data_dir=tmp_path / "c", frames=6)
    for example in found.splits["test"].inputs:
        assert example[:, 0, 0, 0].tolist() == [0, 20, 40, 60, 80, 100]


def test_without_ffmpeg_and_pyav_one_line_says_what_to_install(
    tmp_path, film, monkeypatch
):
    monkeypatch.setattr(FilmsFromFiles, "file", film)
    monkeypatch.setattr(shutil, "which", lambda name, *rest: None)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DataError, match="needs the package av; pip install av"):
        load("films_from_files", data_dir=tmp_path / "c", frames=6)
    assert not list((tmp_path / "c" / "tfds").iterdir())


def record(data):
    return len(data).to_bytes(8, "little") + b"\0" * 4 + data + b"\0" * 4


def robot_film(number, split):
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.SequenceExample()
    feature = example.context.feature
    for t in range(30):
        for camera, level in (("image_main", 2 * number), ("image_aux1", 255)):
            pixels = np.full((64, 64, 3), level + (t if level < 255 else 0), np.uint8)
            feature[f"{t}/{camera}/encoded"].bytes_list.value.append(pixels.tobytes())
        feature[f"{t}/action"].float_list.value.extend([0.0] * 4)
        feature[f"{t}/endeffector_pos"].float_list.value.extend([0.0] * 3)
    return record(example.SerializeToString())


def test_the_robots_of_bair_from_their_archive(tmp_path):
    path = tmp_path / "bair_robot_pushing_dataset_v0.tar"
    with tarfile.open(path, "w") as tar:
        for split, numbers in (("train", range(4)), ("test", range(4, 6))):
            data = b"".join(robot_film(n, split) for n in numbers)
            info = tarfile.TarInfo(f"softmotion30_44k/{split}/traj_0.tfrecords")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    found = load(
        "bair_robot_pushing_small",
        data_dir=tmp_path / "c",
        manual_dir=tmp_path,
        sampling="start",
    )
    assert found.image_shape == (30, 64, 64, 3) and found.classes == ()
    test = sorted(found.splits["test"].inputs[:, :, 5, 5, 1].tolist())
    assert test == [list(range(8, 38)), list(range(10, 40))]
    assert any("its image_main; not used: image_aux1" in line for line in found.notes)


def test_the_films_of_davis_whose_files_have_no_checksum(tmp_path):
    with zipfile.ZipFile(tmp_path / "DAVIS-2017-trainval-480p.zip", "w") as archive:
        for split, levels in (("train", (0, 50, 100, 150, 200)), ("val", (250,))):
            names = "\n".join(map(str, levels))
            archive.writestr(f"DAVIS/ImageSets/2017/{split}.txt", names)
            for level in levels:
                for t, kind in itertools.product(range(3), ("jpg", "png")):
                    file, mode = io.BytesIO(), "RGB" if kind == "jpg" else "L"
                    Image.new(mode, (12, 9), (level,) * len(mode)).save(
                        file, "JPEG" if kind == "jpg" else "PNG"
                    )
                    folder = "JPEGImages" if kind == "jpg" else "Annotations"
                    path = f"DAVIS/{folder}/480p/{level}/{t:05d}.{kind}"
                    archive.writestr(path, file.getvalue())
    found = load(
        "davis", data_dir=tmp_path / "c", manual_dir=tmp_path, frames=3, size=8
    )
    assert found.image_shape == (3, 8, 8, 3)
    (example,) = found.splits["validation"].inputs
    assert (example == 250).all()  # a flat image survives JPEG
    assert "clips are its video/frames; not used: video/segmentations" in found.notes


@pytest.mark.parametrize(
    "name, words",
    [
        ("moving_mnist", ["test clips only", "use moving_digits/mnist"]),
        ("starcraft_video", ["needs TensorFlow to parse", "give their folder"]),
        ("ucf101", ["cannot be downloaded", "UCF101_videos.zip", "--data.manual-dir"]),
        ("davis", ["cannot be downloaded", "480p.zip", "--data.manual-dir"]),
        ("youtube_vis", ["must be downloaded manually", "--data.manual-dir"]),
        ("tao", ["--data.manual-dir"]),
        ("robonet", ["--data.manual-dir"]),
    ],
)
def test_a_set_that_does_not_come_by_itself_says_why(name, words, tmp_path):
    with pytest.raises(DataError) as caught:
        load(name, data_dir=tmp_path, size=32)
    for word in words:
        assert word in str(caught.value), str(caught.value)
