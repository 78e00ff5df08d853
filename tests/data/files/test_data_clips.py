"""Your own clips and features: folders, tables, sampling, broken files."""

import io
import sys
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from lstm_jax.data import (
    DataError,
    Split,
    eval_batches,
    load,
    normalization,
    read_clip,
    read_features,
    stream_frames,
    train_batch,
)
from lstm_jax.data import cache as caching
from lstm_jax.data.files.clip_files import natural, pick_steps, probe_clip

RED, GREEN = (200, 30, 30), (30, 200, 30)


def pictures(values, size=(8, 6), mode="L"):
    """One plain image for each value; size is (width, height)."""
    return [Image.new(mode, size, value) for value in values]


def gif(path, values, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = pictures(values, **kwargs)
    first.save(path, save_all=True, append_images=rest)
    return path


def folder(path, values, **kwargs):
    """Frames called frame1.png, frame2.png, …, so that frame10 sorts wrongly."""
    path.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures(values, **kwargs), start=1):
        picture.save(path / f"frame{number}.png")
    return path


def video(path, colours, size=(48, 32), pix_fmt="yuv420p", codec="mpeg4", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        for colour in colours:
            array = np.full((size[1], size[0], 3), colour, np.uint8)
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            container.mux(stream.encode(frame.reformat(format=pix_fmt)))
        container.mux(stream.encode())
    return path


def noise_video(path, frames, **options):
    """A video that does not compress, so that half a file is half the frames."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (frames, 32, 48, 3), dtype=np.uint8)
    return video(path, noise, **options)


def features(path, steps, width=3, start=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.arange(steps, dtype=np.float32)[:, None] + start
    np.save(path, np.tile(values, (1, width)))
    return path


def table(path, header, lines):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def halve(path, share=0.5):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def everything(data):
    """(name, inputs, target, length) of every example."""
    for split, part in data.splits.items():
        full = np.full(len(part.inputs), part.inputs.shape[1], np.int32)
        lengths = full if part.lengths is None else part.lengths
        yield from zip(
            data.names[split], part.inputs, part.targets, lengths, strict=True
        )


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_folder_of_animations_of_several_lengths(tmp_path, cache):
    for c, name in enumerate(("still", "wave")):
        for i in range(6):
            values = [100 * c + 10 * i + t for t in range(3 + i)]
            gif(tmp_path / "p" / name / f"{i}.gif", values)
    data = load(tmp_path / "p", data_dir=cache, frames=4)
    assert data.classes == ("still", "wave") and data.image_shape == (4, 6, 8, 1)
    seen = set()
    for name, clip, target, length in everything(data):
        kind, number = name.split("/")
        i = int(number.removesuffix(".gif"))
        total = 3 + i
        assert kind == data.classes[target] and length == min(total, 4)
        steps = [t * (total - 1) // (length - 1) for t in range(length)]
        want = [100 * target + 10 * i + t for t in steps] + [0] * (4 - length)
        np.testing.assert_array_equal(clip, np.full_like(clip.T, want).T)
        seen.add(name)
    assert len(seen) == 12
    train = data.splits["train"]
    assert train.inputs.dtype == np.uint8 and train.lengths.dtype == np.int32
    assert "random split, seed 0 (train 8, validation 2, test 2)" in data.notes[-1]


def test_folders_of_frames_in_natural_order_and_split_folders(tmp_path, cache):
    for split, count in (("train", 4), ("val", 1), ("test", 2)):
        for c, name in enumerate("ab"):
            for i in range(count):
                values = range(c, c + 12)
                folder(tmp_path / "p" / split / name / f"clip{i}", values)
    data = load(tmp_path / "p", data_dir=cache, frames=12)
    assert {n: len(s.inputs) for n, s in data.splits.items()} == {
        "train": 8,
        "validation": 2,
        "test": 4,
    }
    for name, clip, target, length in everything(data):
        assert length == 12 and name.split("/")[1] == "ab"[target]
        assert clip[:, 0, 0, 0].tolist() == list(range(target, target + 12))
    assert data.splits["train"].lengths is None  # every clip is whole
    assert data.notes == ("14 folders of images are read as one clip each",)
    assert natural("frame2") < natural("frame10") and natural("7b") < natural("a7")


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mov", "mkv"])
def test_folder_of_videos(tmp_path, cache, suffix):
    for name, colour in (("green", GREEN), ("red", RED)):
        for i in range(3):
            video(tmp_path / "p" / name / f"{i}.{suffix}", [colour] * (4 + i))
    data = load(tmp_path / "p", data_dir=cache, frames=5)
    assert data.image_shape == (5, 32, 48, 3)  # a common size is kept
    for name, clip, target, length in everything(data):
        assert length == min(4 + int(name.split("/")[1][0]), 5)
        # mpeg4 keeps a plain colour to a few levels
        error = np.abs(clip[:length] - np.array((GREEN, RED)[target], float)).max()
        assert error < 8 and not clip[length:].any()
    alike, split = data.notes  # clips of one colour are copies of each other
    assert alike.startswith("too few clips differ") and "random split" in split


def test_pictures_stay_pictures(tmp_path, cache):
    for name in "ab":
        folder(tmp_path / "p" / name, range(5))
        gif(tmp_path / "p" / name / "x.gif", [1, 2, 3])
        folder(tmp_path / "p" / name / "more", [7])
    data = load(tmp_path / "p", data_dir=cache)
    assert data.image_shape == (6, 8, 1) and data.groups is None
    assert sum(len(split.inputs) for split in data.splits.values()) == 14
    for name in "ab":
        for i in range(4):
            gif(tmp_path / "gifs" / name / f"{i}.gif", [i])
    assert load(tmp_path / "gifs", data_dir=cache).image_shape == (6, 8, 1)
    gif(tmp_path / "gifs" / "a" / "0.gif", [1, 2])
    data = load(tmp_path / "gifs", data_dir=cache)  # now of clips, most of one frame
    assert data.image_shape == (16, 6, 8, 1)
    assert sorted(length for *_, length in everything(data)) == [1] * 7 + [2]


def test_sampling():
    def picked(*args):
        return [steps.tolist() for steps in pick_steps(*args)]

    assert picked(9, 5, "uniform") == [[0, 2, 4, 6, 8]]
    assert picked(3, 5, "uniform") == picked(3, 5, "start") == [[0, 1, 2]]
    assert picked(9, 1, "uniform") == picked(9, 1, "start") == [[0]]
    assert picked(9, 4, "start") == [[0, 1, 2, 3]]
    assert picked(9, 4, "windows") == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    for total in range(1, 40):
        for frames in range(1, 40):
            (steps,) = picked(total, frames, "uniform")
            assert len(set(steps)) == len(steps) == min(total, frames)
            assert steps[0] == 0 and (frames == 1 or steps[-1] == total - 1)


def test_windows_of_a_clip_stay_in_one_split(tmp_path, cache):
    for c, name in enumerate("ab"):
        for i in range(5):
            first = 20 * (5 * c + i)
            gif(tmp_path / "p" / name / f"{i}.gif", range(first, first + 10))
    data = load(tmp_path / "p", data_dir=cache, frames=4, sampling="windows")
    home = {}
    for split, part in data.splits.items():
        for k, name in enumerate(data.names[split]):
            assert home.setdefault(name, split) == split
            window = k - data.names[split].index(name)
            first = 20 * (5 * "ab".index(name[0]) + int(name[2])) + 4 * window
            assert part.lengths[k] == (4, 4, 2)[window]
            want = range(first, first + part.lengths[k])
            got = part.inputs[k, : part.lengths[k], 0, 0, 0]
            assert got.tolist() == list(want)
    assert len(home) == 10 and len(set(home.values())) == 3
    assert sum(len(split.inputs) for split in data.splits.values()) == 30
    start = load(tmp_path / "p", data_dir=cache, frames=4, sampling="start", size=5)
    assert start.image_shape == (4, 5, 5, 1)
    first = next(everything(start))[1][:, 0, 0, 0]
    assert (np.diff(first.astype(int)) == 1).all()


def test_table_of_clips_with_labels_groups_and_splits(tmp_path, cache):
    lines = []
    for i in range(12):
        if i % 2:
            gif(tmp_path / f"{i}.gif", [10 * i, 10 * i + 1])
            lines.append(f"{i}.gif,odd,g{i // 2},train")
        else:
            folder(tmp_path / "clips" / str(i), [10 * i] * 3)
            lines.append(f"clips/{i},even,g{i // 2},train")
    gif(tmp_path / "t.gif", [250, 251])
    lines += ["t.gif,,t1,test", "t.gif,odd,t2,test"]
    path = table(tmp_path / "t.csv", "path,label,group,split", lines)
    data = load(path, data_dir=cache)
    assert data.classes == ("even", "odd") and data.image_shape == (16, 6, 8, 1)
    for name, clip, target, length in everything(data):
        if name != "t.gif":
            i = int(name.removeprefix("clips/").removesuffix(".gif"))
            assert target == i % 2 and length == 3 - target and clip[0, 0, 0] == 10 * i
    groups = [{n.strip("clips/.g") for n in data.names[s]} for s in data.splits]
    pairs = [{int(i) // 2 for i in group if i.isdecimal()} for group in groups]
    assert not pairs[0] & pairs[1] and len(pairs[1]) >= 1
    # What has no label is kept, since an answer for it is wanted.
    assert data.names["test"] == ("t.gif", "t.gif")
    assert data.splits["test"].targets.tolist() == [-1, 1]
    assert "1 test clips have no label" in " ".join(data.notes)


def test_table_of_clips_with_several_labels(tmp_path, cache):
    lines = []
    for i in range(10):
        features(tmp_path / f"{i}.npy", 2 + i, start=10 * i)
        lines.append(f"{i}.npy,{i % 2},{'' if i < 2 else int(i > 4)},train")
    lines.append("10.npy,,,test")
    features(tmp_path / "10.npy", 4)
    path = table(tmp_path / "t.csv", "path,Odd,large,split", lines)
    data = load(path, data_dir=cache)
    assert data.classes == ("odd", "large") and data.image_shape == (11, 3)
    for name, clip, target, length in everything(data):
        i = int(name.removesuffix(".npy"))
        assert clip.dtype == target.dtype == np.float32 and target.shape == (2,)
        if i < 10:
            assert target[0] == i % 2 and length == 2 + i
            assert np.isnan(target[1]) if i < 2 else target[1] == (i > 4)
            np.testing.assert_array_equal(clip[:length, 0], 10 * i + np.arange(length))
            assert not clip[length:].any()
    assert np.isnan(data.splits["test"].targets).all()
    assert len(data.splits["test"].inputs) == 1


def test_table_of_steps(tmp_path, cache):
    lines = []
    for i in range(8):
        features(tmp_path / f"{i}.npy", 5 + i % 3)
        known = [t for t in range(5 + i % 3) if t != 2]  # step 2 is not listed
        lines += [f"{i}.npy,{t},p{i // 2},{t % 2},{int(t == i)}," for t in known]
    lines.append("0.npy,99,p0,1,1,")
    lines = [lines[k] for k in np.random.default_rng(0).permutation(len(lines))]
    lines = [line.removesuffix(",") + ",train" for line in lines]
    features(tmp_path / "sub" / "new.npy", 3)
    lines += [f"sub/new.npy,{t},q,,,test" for t in range(3)]
    header = "path,step,group,odd,own,split"
    data = load(table(tmp_path / "t.csv", header, lines), data_dir=cache)
    assert data.classes == ("odd", "own") and data.image_shape == (7, 3)
    assert data.names["test"] == ("sub/new.npy",)
    assert data.splits["test"].targets.shape == (1, 7, 2)
    assert np.isnan(data.splits["test"].targets).all()
    homes = {}
    for split in ("train", "validation"):
        part = data.splits[split]
        for name, target, length in zip(
            data.names[split], part.targets, part.lengths, strict=True
        ):
            i = int(name[0])
            assert homes.setdefault(i // 2, split) == split and length == 5 + i % 3
            assert np.isnan(target[2]).all() and np.isnan(target[length:]).all()
            known = [t for t in range(length) if t != 2]
            np.testing.assert_array_equal(target[known, 0], np.array(known) % 2)
            np.testing.assert_array_equal(target[known, 1], np.array(known) == i)
    assert set(homes) == {0, 1, 2, 3} and len(set(homes.values())) == 2
    assert any("1 of its labels are for later steps" in n for n in data.notes)
    # Fewer frames than steps: the labels follow the steps that are taken.
    few = load(tmp_path / "t.csv", data_dir=cache, frames=3)
    for name, clip, target, _ in everything(few):
        for t in range(3):
            step = int(clip[t, 0])
            if step != 2 and name != "sub/new.npy":
                assert target[t, 0] == step % 2


@pytest.mark.parametrize(
    ("header", "lines", "words"),
    [
        ("path", ["0.npy"], "no label column"),
        ("path,label", ["0.npy,"], "entry 1 has an empty label"),
        ("path,label", [",a", "0.npy,a"], "entry 1 has an empty path"),
        ("path,label,split", ["0.npy,a,late"], "the split 'late'; expected train"),
        ("path,a,b", ["0.npy,1,2"], "entry 1 has '2' in the column b; expected 0, 1"),
        ("path,a,b", ["0.npy,1,yes"], "entry 1 has 'yes' in the column b"),
        ("path,step,a", ["0.npy,x,1"], "entry 1 has the step 'x'; expected 0"),
        ("path,step,a", ["0.npy,1,1"] * 2, "entry 2: step 1 of 0.npy is listed twice"),
        ("path,step,group,a", ["0.npy,1,g,1", "0.npy,2,h,1"], "belongs to one group"),
        (
            "path,label,group,split",
            ["0.npy,a,g,train", "1.npy,b,g,test"],
            "group 'g' is in train and in test",
        ),
        ("path,label", ["0.npy,a", "x.mp4,b"], "lists .npy features and clips"),
        (
            "path,label",
            [f"gone{i}.npy,{'ab'[i % 2]}" for i in range(6)],
            "none of its 6 files .*gone0.npy: No such file",
        ),
        ("path,label", [f"{i}.npy,a" for i in range(3)], "one class only, 'a'"),
        ("path,a,b", ["0.npy,1,0", "1.npy,1,0"], "the table has too few clips"),
    ],
)
def test_malformed_tables(tmp_path, cache, header, lines, words):
    for i in range(3):
        features(tmp_path / f"{i}.npy", 4)
    with pytest.raises(DataError, match=words) as error:
        load(table(tmp_path / "t.csv", header, lines), data_dir=cache)
    assert "\n" not in str(error.value)


def test_wrong_options(tmp_path):
    with pytest.raises(DataError, match="frames is a whole number, at least 1; got 0"):
        load("digits", frames=0)
    with pytest.raises(DataError, match="got 'window'; did you mean 'windows'"):
        load("digits", sampling="window")


def test_flawed_clips_are_told_and_the_rest_is_used(tmp_path, cache):
    root = tmp_path / "p"
    for name in "ab":
        for i in range(4):
            gif(root / name / f"{i}.gif", [10 * i + t for t in range(4)])
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 255, (6, 8), np.uint8)) for _ in range(20)]
    noise[0].save(root / "a" / "cut.gif", save_all=True, append_images=noise[1:])
    halve(root / "a" / "cut.gif")
    gif(root / "a" / "one.gif", [7])
    (root / "a" / "empty.gif").write_bytes(b"")
    (root / "a" / "text.gif").write_text("no image")
    (root / "b" / "bare").mkdir()
    folder(root / "b" / "frames", range(5))
    (root / "b" / "frames" / "frame3.png").write_bytes(b"\x89PNG")
    (root / "nothing").mkdir()
    data = load(root, data_dir=cache, frames=6)
    assert data.classes == ("a", "b")
    lengths = {name: length for name, *_, length in everything(data)}
    assert lengths["a/one.gif"] == 1 and lengths["b/frames"] == 4
    assert len(lengths) == 11 and 1 <= lengths["a/cut.gif"] <= 6
    notes = "\n".join(data.notes)
    assert len(data.notes) == len(notes.splitlines())
    for words in (
        "nothing/ holds no image, clip or features",
        f"{root / 'a' / 'cut.gif'}: ends early, after ",
        f"skipped {root / 'a' / 'empty.gif'}: an empty file",
        f"skipped {root / 'a' / 'text.gif'}: not a readable animation",
        f"skipped {root / 'b' / 'bare'}: no images in this folder",
        f"{root / 'b' / 'frames' / 'frame3.png'}: not a readable image",
    ):
        assert words in notes
    again = load(root, data_dir=cache, frames=6)  # from the cache
    assert again.notes == data.notes
    for one, other in zip(everything(data), everything(again), strict=True):
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((1, 2, 5, 9), "2 gaps, the first between frame2.png and frame5.png"),
        ((1, 2, 3, 4, 6), "1 gap, the first between frame4.png and frame6.png"),
        ((0, 5, 10, 20), "1 gap, the first between frame10.png and frame20.png"),
        ((0, 5, 10, 15), ""),
        ((7, 8, 9), ""),
        ((3, 9), ""),
    ],
)
def test_gaps_in_the_numbers_of_frames_are_told(numbers, words, tmp_path):
    path = tmp_path / "clip"
    path.mkdir()
    for number in numbers:
        Image.new("L", (4, 4), number).save(path / f"frame{number}.png")
    flaws = probe_clip(path).flaws
    assert bool(flaws) == bool(words)
    if words:
        (line,) = flaws
        assert line.startswith(f"{path}: its frames are not numbered evenly")
        assert line.endswith(words)
    clip, length = read_clip(path, 8, (4, 4, 1))
    assert clip[:length, 0, 0, 0].tolist() == list(numbers)


def test_deep_frames_of_a_clip_have_one_range(tmp_path):
    path = tmp_path / "clip"
    path.mkdir()
    for number, value in enumerate((900, 4000)):  # 10 and 12 bits
        pixels = np.full((4, 4), value, np.uint16)
        Image.fromarray(pixels).save(path / f"{number}.png")
    clip, _ = read_clip(path, 2, (4, 4, 1))
    assert clip[:, 0, 0, 0].tolist() == [56, 249]  # of 255, as 4,095


def test_truncated_videos(tmp_path, cache):
    whole = noise_video(tmp_path / "whole.avi", 20)
    assert probe_clip(whole).steps == 20 and not probe_clip(whole).flaws
    cut = {
        "a.mkv": noise_video(tmp_path / "a.mkv", 20),
        "a.mp4": noise_video(tmp_path / "a.mp4", 20, movflags="faststart"),
    }
    for path in cut.values():
        halve(path)
        clip, length = read_clip(path, 20, (32, 48, 3))
        assert 3 < length < 15 and clip[:length].any((1, 2, 3)).all()
        assert not clip[length:].any() and "ends early" in probe_clip(path).flaws[0]
    # Without its index, which stands at the end, an mp4 is lost.
    halve(noise_video(tmp_path / "b.mp4", 20))
    lines = ["whole.avi,a", "whole.avi,b"] * 3
    lines += [f"{name},a" for name in (*cut, "b.mp4")]
    data = load(table(tmp_path / "t.csv", "path,label", lines), data_dir=cache, size=4)
    assert data.image_shape == (16, 4, 4, 3)
    assert sum("ends early" in note for note in data.notes) == 2
    assert sum("b.mp4: not a readable video" in note for note in data.notes) == 1
    assert sum(len(split.inputs) for split in data.splits.values()) == 8


def test_sizes_modes_and_depths(tmp_path, cache):
    root = tmp_path / "p"
    for name in "ab":
        for i in range(3):
            gif(root / name / f"{i}.gif", [100, 101])
    data = load(root, data_dir=cache)
    assert data.image_shape == (16, 6, 8, 1)
    folder(root / "a" / "large", [100] * 2, size=(40, 30))
    folder(root / "a" / "clear", [(9, 9, 9, 0)] * 2, mode="RGBA")
    wide = np.full((6, 8), 30_000, np.uint16)
    folder(root / "b" / "deep", [0])
    Image.fromarray(wide).save(root / "b" / "deep" / "frame1.png")
    data = load(root, data_dir=cache)
    assert data.image_shape == (16, 64, 64, 3)
    assert any("frames of 2 sizes: all resized to 64x64" in n for n in data.notes)
    clips = {name: clip for name, clip, *_ in everything(data)}
    assert (clips["a/clear"][:2] == 255).all()  # laid on white
    assert (clips["b/deep"][0] == round(30_000 / 257)).all()
    assert (clips["a/large"][:2] == 100).all()
    assert load(root, data_dir=cache, size=9).image_shape == (16, 9, 9, 3)
    grey = video(tmp_path / "grey.avi", [(77,) * 3] * 2, pix_fmt="gray", codec="ffv1")
    assert probe_clip(grey).grey
    assert (read_clip(grey, 2, (4, 4, 1))[0] == 77).all()
    clear = video(
        tmp_path / "clear.mov", [(9, 9, 9)] * 2, pix_fmt="argb", codec="qtrle"
    )
    assert (read_clip(clear, 2, (4, 4, 1))[0] == 9).all()


def test_a_video_is_turned_upright(tmp_path):
    colours = np.zeros((32, 48, 3), np.uint8)
    colours[:, :24] = 255
    path = video(tmp_path / "x.mp4", [colours] * 2)
    whole = bytearray(path.read_bytes())
    at = whole.index(b"tkhd") + 44  # of the matrix: x' = -y, y' = x turns clockwise
    matrix = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], ">i4")
    whole[at : at + 36] = matrix.tobytes()
    path.write_bytes(whole)
    assert probe_clip(path).sizes == {(48, 32)}
    clip, _ = read_clip(path, 2, (48, 32, 1))
    assert (clip[:, :16] > 200).all() and (clip[:, -16:] < 50).all()


def test_features_that_cannot_be_used(tmp_path, cache):
    lines = []
    for i in range(8):
        features(tmp_path / f"{i}.npy", 5)
        lines.append(f"{i}.npy,{'ab'[i % 2]}")
    np.save(tmp_path / "rank.npy", np.zeros((2, 3, 4)))
    np.save(tmp_path / "nan.npy", np.array([[1.0, np.nan, 2.0]]))
    np.save(tmp_path / "text.npy", np.array([["a", "b", "c"]]))
    np.save(tmp_path / "objects.npy", np.array([[None] * 3]), allow_pickle=True)
    features(tmp_path / "wide.npy", 5, width=4)
    halve(features(tmp_path / "cut.npy", 500))
    (tmp_path / "empty.npy").write_bytes(b"")
    bad = ("rank", "nan", "text", "objects")
    path = table(tmp_path / "t.csv", "path,label", lines + [f"{n}.npy,a" for n in bad])
    data = load(path, data_dir=cache)
    assert data.image_shape == (5, 3) and data.splits["train"].lengths is None
    notes = "\n".join(data.notes)
    for words in (
        "rank.npy: float64 of shape (2, 3, 4); expected numbers [steps, F]",
        "nan.npy: holds NaN or infinite numbers",
        "text.npy: <U1 of shape (1, 3)",
        "objects.npy: not a readable .npy",
    ):
        assert f"skipped {tmp_path}/{words}" in notes
    lines += [f"{name}.npy,b" for name in ("wide", "cut", "empty")]
    data = load(table(path, "path,label", lines), data_dir=cache)
    notes = "\n".join(data.notes)
    for words in (
        "wide.npy: has F=4, but 8 others have F=3",
        "cut.npy: not a readable .npy",
        "empty.npy: an empty file",
    ):
        assert f"skipped {tmp_path}/{words}" in notes
    lines += [f"rank.npy,{'ab'[i % 2]}" for i in range(9)]
    data = load(table(path, "path,label", lines), data_dir=cache)
    assert data.notes[5] == "7 more clips that cannot be used"
    values, length = read_features(tmp_path / "0.npy", 8)
    assert values.shape == (8, 3) and length == 5 and not values[5:].any()
    np.testing.assert_array_equal(values[:5, 0], np.arange(5))


def test_nothing_usable_is_one_clear_error(tmp_path, cache):
    for name in "ab":
        for i in range(3):
            (tmp_path / "p" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "p" / name / f"{i}.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="none of its 6 clips can be used; the first"):
        load(tmp_path / "p", data_dir=cache)


def test_without_pyav_only_videos_are_refused(tmp_path, cache, monkeypatch):
    for name in "ab":
        for i in range(3):
            gif(tmp_path / "p" / name / f"{i}.gif", [1, 2])
    clip = video(tmp_path / "x.mp4", [RED] * 2)
    monkeypatch.setitem(sys.modules, "av", None)
    assert load(tmp_path / "p", data_dir=cache).image_shape == (16, 6, 8, 1)
    clip = clip.rename(tmp_path / "p" / "a" / "x.mp4")
    for call in (
        lambda: load(tmp_path / "p", data_dir=cache),
        lambda: read_clip(clip, 2, (4, 4, 3)),
        lambda: stream_frames(clip, (4, 4, 3)),
    ):
        with pytest.raises(DataError, match="needs PyAV .*; pip install av$"):
            call()


def test_a_large_set_is_never_held_whole(tmp_path, cache, monkeypatch):
    for name in "ab":
        for i in range(5):
            gif(tmp_path / "p" / name / f"{i}.gif", [10 * i, 10 * i + 1])
    small = load(tmp_path / "p", data_dir=cache, frames=3)
    monkeypatch.setattr(caching, "_IN_MEMORY", 100)
    large = load(tmp_path / "p", data_dir=cache, frames=3)
    for name, split in large.splits.items():
        assert isinstance(split.inputs, np.memmap)
        np.testing.assert_array_equal(split.inputs, small.splits[name].inputs)
    monkeypatch.setattr(
        "lstm_jax.data.cache.shutil.disk_usage",
        lambda _: SimpleNamespace(free=10),
    )
    with pytest.raises(DataError, match="0.00 GiB are free; make room, give a smaller"):
        load(tmp_path / "p", data_dir=cache, frames=2)


def test_the_cache_follows_the_frames(tmp_path, cache):
    for name in "ab":
        for i in range(3):
            folder(tmp_path / "p" / name / f"{i}", [1, 2])
    assert load(tmp_path / "p", data_dir=cache).splits["train"].inputs.max() == 2
    for number in range(3):
        folder(tmp_path / "p" / "a" / str(number), [1, 2, 99])
    top = [s.inputs.max() for s in load(tmp_path / "p", data_dir=cache).splits.values()]
    assert max(top) == 99


def test_reading_one_clip(tmp_path):
    path = gif(tmp_path / "x.gif", range(10, 20))
    clip, length = read_clip(path, 4, (6, 8, 1))
    assert clip.dtype == np.uint8 and length == 4
    assert clip[:, 0, 0, 0].tolist() == [10, 13, 16, 19]
    clip, length = read_clip(str(path), 16, (3, 3, 3), sampling="start")
    assert clip.shape == (16, 3, 3, 3) and length == 10 and not clip[10:].any()
    clip, length = read_clip(folder(tmp_path / "f", range(12)), 12, (6, 8, 1))
    assert clip[:, 0, 0, 0].tolist() == list(range(12))
    features(tmp_path / "x.npy", 3)
    for call, words in (
        (lambda: read_clip(tmp_path / "no.gif", 4, (6, 8, 1)), "No such file"),
        (lambda: read_clip(path, 4, (6, 8, 2)), "1 or 3 channels; got"),
        (lambda: read_clip(path, 0, (6, 8, 1)), "frames at least 1; got 'uniform', 0"),
        (lambda: read_clip(path, 4, (6, 8, 1), "windows"), "got 'windows', 4"),
        (lambda: read_clip(tmp_path / "x.npy", 4, (6, 8, 1)), "features, not frames"),
        (lambda: read_features(path, 4), "not an .npy of features"),
    ):
        with pytest.raises(DataError, match=words):
            call()


def test_streaming_equals_reading(tmp_path):
    sources = [
        gif(tmp_path / "x.gif", range(10, 18)),
        folder(tmp_path / "f", range(12)),
        noise_video(tmp_path / "x.mp4", 7),
    ]
    for source in sources:
        frames = list(stream_frames(source, (5, 4, 3)))
        clip, length = read_clip(source, len(frames), (5, 4, 3), "start")
        assert length == len(frames) > 6
        np.testing.assert_array_equal(np.stack(frames), clip)


def test_streaming_from_standard_input(monkeypatch):
    frames = np.arange(3 * 24, dtype=np.uint8).reshape(3, 4, 2, 3)

    def pipe(data):
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))

    pipe(frames.tobytes())
    np.testing.assert_array_equal(list(stream_frames("-", (4, 2, 3))), frames)
    pipe(frames.tobytes()[:-1])
    stream = stream_frames("-", (4, 2, 3))
    assert (next(stream) == frames[0]).all() and (next(stream) == frames[1]).all()
    with pytest.raises(DataError, match="ends inside a frame, after 23 of its 24"):
        next(stream)


def test_streams_that_do_not_open_or_break(tmp_path, monkeypatch):
    (tmp_path / "bare").mkdir()
    for source, words in (
        (tmp_path / "no.mp4", "no such file or folder"),
        (tmp_path / "bare", "no images in this folder"),
        ("987", "camera 987: there is no /dev/video987"),
    ):
        monkeypatch.setattr(sys, "platform", "linux")
        with pytest.raises(DataError, match=words):
            stream_frames(source, (4, 4, 1))
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(DataError, match="cameras work on Linux only"):
        stream_frames("0", (4, 4, 1))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("os.path.exists", lambda _: True)
    with pytest.raises(DataError, match="camera 987 cannot be opened, or another"):
        stream_frames("987", (4, 4, 1))
    monkeypatch.undo()
    broken = folder(tmp_path / "f", range(3))
    (broken / "frame2.png").write_bytes(b"x")
    stream = stream_frames(broken, (4, 4, 1))
    assert (next(stream) == 0).all()
    with pytest.raises(DataError, match="frame2.png: not a readable image"):
        next(stream)


def test_batches_carry_lengths():
    lengths = np.array([1, 3, 2], np.int32)
    split = Split(np.zeros((3, 3, 2)), np.arange(3, dtype=np.int32), lengths)
    batch = train_batch(split, 2, seed=0, step=0)
    np.testing.assert_array_equal(batch["lengths"], lengths[batch["targets"]])
    last = list(eval_batches(split, 2))[-1]
    assert last["lengths"].tolist() == [2, 1] and last["mask"].tolist() == [1, 0]
    assert "lengths" not in train_batch(split._replace(lengths=None), 2, seed=0, step=0)


def test_statistics_leave_padding_out():
    rng = np.random.default_rng(0)
    lengths = np.array([5, 2, 1])
    valid = np.arange(5) < lengths[:, None]
    pixels = rng.integers(0, 256, (3, 5, 4, 4, 2), dtype=np.uint8)
    values = rng.normal(3, 2, (3, 5, 6)).astype(np.float32)
    for inputs in (pixels, values):
        offset, scale = normalization(inputs, "standard", lengths)
        kept = inputs[valid].reshape(-1, inputs.shape[-1]).astype(np.float64)
        # float32 constants
        np.testing.assert_allclose(offset, kept.mean(0), rtol=1e-5)
        np.testing.assert_allclose(scale, 1 / kept.std(0), rtol=1e-5)
    with pytest.raises(DataError, match="unit is defined for pixels, but .* float32"):
        normalization(values, "unit")


@pytest.mark.parametrize("sampling", ["uniform", "windows"])
def test_classes_are_counted_again_without_unreadable_clips(tmp_path, cache, sampling):
    for label in "abc":
        for k in range(5):
            gif(tmp_path / "p" / label / f"{k}.gif", [10 * k, 40 * k, ord(label)])
    for k in range(1, 5):
        halve(tmp_path / "p" / "c" / f"{k}.gif", 0.05)
    options = dict(data_dir=cache, frames=2, sampling=sampling)
    with pytest.raises(DataError, match="class 'c' has too few clips"):
        load(tmp_path / "p", **options)
    data = load(tmp_path / "p", **options, min_per_class=3)
    assert data.classes == ("a", "b")
    assert {name[0] for names in data.names.values() for name in names} == {"a", "b"}
    assert any("left out 1 class with fewer than 3" in note for note in data.notes)
    assert all(data.classes[kind] == name[0] for name, _, kind, _ in everything(data))
    (tmp_path / "p" / "c" / "0.gif").write_bytes(b"x")
    with pytest.raises(DataError, match="give a smaller --data.min-per-class"):
        load(tmp_path / "p", **options, min_per_class=6)
    with pytest.raises(DataError, match="no clip of class 'c' can be read"):
        load(tmp_path / "p", **options)
    found = load(tmp_path / "p", **options, min_per_class=1)
    assert found.classes == ("a", "b")


@pytest.mark.parametrize("labels", ["label", "wet,cold"])
def test_a_column_of_a_table_of_clips_keeps_groups_together(tmp_path, cache, labels):
    lines = []
    for k in range(24):
        gif(tmp_path / f"{k}.gif", [k, 9 * k, 200])
        value = "ab"[k % 2] if labels == "label" else f"{k % 2},{k // 2 % 2}"
        lines.append(f"{k}.gif,p{k // 3},{value}")
    path = table(tmp_path / "t.csv", f"path,Patient,{labels}", lines)
    data = load(path, data_dir=cache, group="patient", frames=3)
    assert data.classes == (("a", "b") if labels == "label" else ("wet", "cold"))
    homes = {}
    for split, names in data.names.items():
        for name, group in zip(names, data.groups[split], strict=True):
            assert group == f"p{int(name.removesuffix('.gif')) // 3}"
            homes.setdefault(group, set()).add(split)
    assert len(homes) == 8 and all(len(splits) == 1 for splits in homes.values())
