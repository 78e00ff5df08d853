"""Runs a tfds builder's preparation without TensorFlow and with short timeouts.

Most builders use TensorFlow only to open files and records and to encode images. While
the preparation runs, these functions are replaced by plain Python.
"""

import contextlib
import glob
import gzip
import importlib.metadata
import importlib.util
import io
import os
import shutil
import socket
import sys
import threading
import urllib.parse
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from PIL import Image

from lstm_jax.data.files.clip_files import import_av

_PATIENCE = 3.0  # seconds until a host counts as unreachable

# Versions of tensorflow-datasets that have all PARTS; pyproject.toml has the same.
SUPPORTED = ">=4.9.9,<4.10"

_MANAGER, _DOWNLOADER = "core.download.download_manager", "core.download.downloader"
# Parts of tensorflow-datasets, most of them private, that are replaced or used here:
# module and attribute.
PARTS = {
    "init": (_MANAGER, "DownloadManager.__init__"),
    "manual_path": (_MANAGER, "DownloadManager._get_manually_downloaded_path"),
    "download": (_MANAGER, "DownloadManager._download"),
    "checksums": (_MANAGER, "DownloadManager._register_or_validate_checksums"),
    "get_downloader": (_MANAGER, "get_downloader"),
    "downloader": (_DOWNLOADER, "_Downloader"),
    "open_url": (_DOWNLOADER, "_open_url"),
    "max_retries": (_DOWNLOADER, "MAX_RETRIES"),
    "encode_image": ("core.features.image_feature", "_ImageEncoder._encode_image"),
    "decode_video": ("core.features.video_feature", "Video._ffmpeg_decode"),
    "idx_examples": ("image_classification.mnist", "MNIST._generate_examples"),
    "tensorflow": ("core.utils.lazy_imports_utils", "tensorflow"),
    "example": ("proto", "tf_example_pb2.Example"),
    "sequence_example": ("proto", "tf_example_pb2.SequenceExample"),
}
# Attributes that instances must have after construction.
_OF_MANAGER = "_download_dir", "_url_infos", "_recorded_url_infos"
_OF_DOWNLOADER = ("_executor",)


class Trace(NamedTuple):
    """What a preparation downloaded or looked for.

    Attributes:
      missing: {URL: file name} that were in no folder and had to be downloaded.
      arrived: URLs of `missing` that were downloaded.
      manual: {file name: path} taken from the folder for manual downloads.
      notes: lines for the user.
    """

    missing: dict[str, str]
    arrived: set[str]
    manual: dict[str, Path]
    notes: list[str]


class Offline(OSError):
    """A host did not respond in time."""


class MovedPart(ImportError, RuntimeError):
    """The installed tensorflow-datasets lacks one of PARTS."""


def find_part(name: str) -> tuple[Any, str]:
    """The object that holds one of PARTS, and its attribute there.

    Raises:
      MovedPart: the installed tensorflow-datasets does not have it.
    """
    module, path = PARTS[name]
    *holders, attribute = path.split(".")
    try:
        owner = importlib.import_module(f"tensorflow_datasets.{module}")
        for holder in holders:
            owner = getattr(owner, holder)
        getattr(owner, attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise _moved(f"{module}.{path}") from error
    return owner, attribute


def _moved(part: str) -> MovedPart:
    return MovedPart(
        f"tensorflow-datasets {importlib.metadata.version('tensorflow-datasets')} has "
        f"no {part}, which lstm_jax needs to prepare data without TensorFlow; install "
        f'a version that has: pip install "tensorflow-datasets{SUPPORTED}"'
    )


def _check_instance(instance: Any, attributes: tuple[str, ...]) -> None:
    for name in attributes:
        if not hasattr(instance, name):
            kind = type(instance)
            raise _moved(f"{kind.__module__}.{kind.__name__}.{name}")


@contextlib.contextmanager
def without_tensorflow(manual_dir: Path | None, workspace: Path) -> Iterator[Trace]:
    """Context manager that lets tfds prepare image sets without TensorFlow.

    Args:
      manual_dir: manually downloaded files; accepted even if their checksum differs
        (recompressed) or `.gz` was unpacked.
      workspace: temporary folder in which such files are recompressed.

    Yields:
      The Trace, updated while the block runs.

    Raises:
      MovedPart: the installed tensorflow-datasets lacks one of PARTS.
      MovedPart: the installed tensorflow-datasets lacks one of PARTS.
    """
    import promise

    trace = Trace({}, set(), {}, [])
    parts = {name: find_part(name) for name in PARTS}
    create, start_download, validate, open_url = (
        getattr(*parts[name]) for name in ("init", "download", "checksums", "open_url")
    )
    worker = getattr(*parts["downloader"])()
    _check_instance(worker, _OF_DOWNLOADER)
    unreachable: list[OSError] = []
    over = threading.Event()

    def in_manual_dir(self: Any, info: Any) -> Any:
        if manual_dir is None or info is None or not info.filename:
            return None
        path = manual_dir / info.filename
        if path.is_file():
            trace.manual[path.name] = path
        elif path.suffix == ".gz" and path.with_suffix("").is_file():
            trace.manual[path.stem] = path.with_suffix("")
            path = workspace / info.filename
            with gzip.open(path, "wb", compresslevel=1) as packed:
                packed.write(trace.manual[path.stem].read_bytes())
        else:
            return None
        return type(self._download_dir)(path)

    def download(self: Any, resource: Any) -> Any:
        info = self._url_infos.get(resource.url)
        name = _file_name(resource.url, info)
        if info is None and manual_dir is not None and (manual_dir / name).is_file():
            trace.manual[name] = manual_dir / name  # of a set without checksums
            path = type(self._download_dir)(manual_dir / name)
            return promise.Promise.resolve(path)
        trace.missing[resource.url] = name

        def arrive(path: Any) -> Any:
            trace.arrived.add(resource.url)
            return path

        return start_download(self, resource).then(arrive)

    def check(self: Any, url: str, url_info: Any, path: Any) -> None:
        if Path(path).parent == workspace or Path(path) in trace.manual.values():
            known = self._url_infos.get(url)
            if known and known != url_info and Path(path).parent != workspace:
                trace.notes.append(
                    f"{path} differs from the published file; used as it is"
                )
            self._recorded_url_infos[url] = url_info
        else:
            validate(self, url, url_info, path)

    @contextlib.contextmanager
    def answer(url: str, **kwargs: Any) -> Iterator[tuple[Any, Iterator[bytes]]]:
        try:
            if unreachable:
                raise unreachable[0]
            _reach(url)
        except OSError as error:
            unreachable.append(error)
            raise
        with open_url(url, timeout=(_PATIENCE, 20), **kwargs) as (response, chunks):
            yield response, until_over(chunks)

    def until_over(chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if over.is_set():
                raise Offline("cancelled, because another file failed")
            yield chunk

    def end_downloads() -> None:
        # Running downloads must not write to a workspace that is being removed.
        over.set()
        worker._executor.shutdown(wait=True, cancel_futures=True)

    def name_files(self: Any, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        _check_instance(self, _OF_MANAGER)
        for url, info in self._url_infos.items():  # names for manual downloads
            info.filename = info.filename or _file_name(url, info)

    replacements = {
        "init": name_files,
        "get_downloader": lambda *_, **__: worker,
        "manual_path": in_manual_dir,
        "download": download,
        "checksums": check,
        "open_url": answer,
        "max_retries": 0,
        "encode_image": _encode_image,
        "idx_examples": _idx_examples,
    }
    if shutil.which("ffmpeg") is None:
        replacements["decode_video"] = _decode_video
    with contextlib.ExitStack() as stack:
        for name, new in replacements.items():
            stack.enter_context(mock.patch.object(*parts[name], new))
        stack.enter_context(tfds_stubs())
        installed = importlib.util.find_spec("tensorflow") is not None
        if installed and "tensorflow" not in sys.modules:
            finders = [_NoTensorFlow, *sys.meta_path]
            stack.enter_context(mock.patch.object(sys, "meta_path", finders))
        stack.callback(end_downloads)
        yield trace


@contextlib.contextmanager
def tfds_stubs() -> Iterator[None]:
    """Context manager that replaces what tfds uses of TensorFlow.

    These are files, dtypes and records.

    Raises:
      MovedPart: the installed tensorflow-datasets lacks one of PARTS.
    """
    stubs = dict(
        _STUBS,
        train=SimpleNamespace(
            Example=getattr(*find_part("example")),
            SequenceExample=getattr(*find_part("sequence_example")),
        ),
        error_callback=None,
        success_callback=None,
    )
    with mock.patch.dict(vars(getattr(*find_part("tensorflow"))), stubs):
        yield


class _NoTensorFlow:
    """Import hook: TensorFlow seems installed but fails to import."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        if name == "tensorflow":
            return importlib.util.spec_from_loader(name, cls)
        return None

    @staticmethod
    def create_module(spec: Any) -> None:
        raise ModuleNotFoundError("TensorFlow is not used here", name=spec.name)

    @staticmethod
    def exec_module(module: Any) -> None:
        raise ModuleNotFoundError("TensorFlow is not used here", name="tensorflow")


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Reads an idx file of bytes, gzipped or not: uint8, with the header's shape."""
    data = Path(path).read_bytes()
    try:
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{os.path.basename(path)}: damaged gzip ({error})") from error
    ndim = data[3] if len(data) > 3 else 0
    start = 4 + 4 * ndim
    if data[:3] != b"\0\0\x08" or len(data) < start:
        raise ValueError(f"{os.path.basename(path)}: not an idx file of bytes")
    shape = tuple(np.frombuffer(data, ">u4", ndim, 4).tolist())
    if len(data) - start != np.prod(shape):
        raise ValueError(
            f"{os.path.basename(path)}: its header states the shape {shape}, "
            f"{np.prod(shape)} bytes, but {len(data) - start} follow"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _idx_examples(
    self: Any, num_examples: int, data_path: Any, label_path: Any
) -> Iterator:
    del num_examples  # the file headers state it
    images, labels = read_idx(data_path), read_idx(label_path)
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images, but {len(labels)} labels")
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield i, {"image": image[..., None], "label": int(label)}


def _encode_image(self: Any, array: np.ndarray) -> bytes:
    """Replaces the encoder of tfds's Image feature."""
    if array.dtype != self.np_dtype or array.ndim != 3:
        raise ValueError(
            f"an image of {array.dtype} {array.shape}; expected {self.np_dtype}"
        )
    if any(w not in (None, n) for w, n in zip(self.shape, array.shape, strict=True)):
        raise ValueError(f"an image of shape {array.shape}; expected {self.shape}")
    file = io.BytesIO()
    squeezed = array[..., 0] if array.shape[-1] == 1 else array
    options = {"quality": 95} if self.encoding_format == "jpeg" else {}
    Image.fromarray(squeezed).save(file, self.encoding_format, **options)
    return file.getvalue()


def _decode_video(self: Any, source: Any) -> list[bytes]:
    """Replaces ffmpeg in tfds's Video feature: frames decoded by PyAV, encoded."""
    options = list(self._extra_ffmpeg_args)
    if options and (options[0] != "-vf" or not options[1].startswith("scale=")):
        raise ValueError(f"its videos need ffmpeg, for {' '.join(options)}; install it")
    height, width, _ = self.feature.shape
    named = source if hasattr(source, "read") else os.fspath(source)
    frames = []
    with import_av("its videos").open(named) as container:
        for frame in container.decode(video=0):
            image = frame.to_image()
            if options and None not in (height, width):
                image = image.resize((width, height), Image.Resampling.BICUBIC)
            file = io.BytesIO()
            image.save(file, self._encoding_format)
            frames.append(file.getvalue())
    return frames


def _records(path: str | os.PathLike) -> Iterator[bytes]:
    """The records of a TFRecord file; checksums are not verified."""
    with open(path, "rb") as file:
        while head := file.read(12):
            size = int.from_bytes(head[:8], "little")
            data = file.read(size)
            if len(head) + len(data) + len(file.read(4)) < size + 16:
                raise ValueError(f"{os.path.basename(path)}: ends inside a record")
            yield data


def _file_name(url: str, info: Any) -> str:
    known = info.filename if info else None
    return known or os.path.basename(urllib.parse.urlparse(url).path) or "download"


def _reach(url: str) -> None:
    """Raises Offline unless the host, or its proxy, accepts a connection in time."""
    parsed = urllib.parse.urlparse(url)
    proxy = urllib.request.getproxies().get(parsed.scheme)
    if proxy and not urllib.request.proxy_bypass(parsed.hostname or ""):
        parsed = urllib.parse.urlparse(proxy if "//" in proxy else f"//{proxy}")
    port = parsed.port or {"http": 80, "ftp": 21}.get(parsed.scheme, 443)
    outcome: list[Exception | None] = []

    def connect() -> None:
        try:
            socket.create_connection((parsed.hostname, port), 1.0).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    # In a thread, because name resolution has no timeout of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    if not outcome or outcome[0] is not None:
        reason = outcome[0] if outcome else f"no response in {_PATIENCE:g} seconds"
        raise Offline(f"{parsed.hostname} cannot be reached: {reason}")


class _Reader(io.BufferedReader):
    """A file that stays readable after its `with` block, as TensorFlow's does.

    Builders of TIFF images rely on that; the last reference closes it.
    """

    def __exit__(self, *_: Any) -> None:
        pass

    def __del__(self) -> None:
        self.close()


def _open(path: str | os.PathLike, mode: str = "r") -> Any:
    if mode == "rb":
        return _Reader(io.FileIO(path))
    return open(path, mode, encoding=None if "b" in mode else "utf-8")


def _as_text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class _Unimplemented(Exception):
    """What TensorFlow's file system raises for unsupported addresses."""


def _copy(source: str, target: str, overwrite: bool = False) -> None:
    if "://" in str(source):
        raise _Unimplemented(source)
    shutil.copyfile(source, target)


def _decode_image(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGBA" if image.mode == "RGBA" else "RGB"))


def _encode_jpeg(pixels: np.ndarray) -> SimpleNamespace:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return SimpleNamespace(numpy=file.getvalue)


_STUBS = {
    "dtypes": SimpleNamespace(as_dtype=np.dtype),
    "shape": np.shape,
    "image": SimpleNamespace(decode_image=_decode_image),
    "io": SimpleNamespace(
        encode_jpeg=_encode_jpeg,
        gfile=SimpleNamespace(
            GFile=_open,
            copy=_copy,
            exists=os.path.exists,
            glob=lambda pattern: sorted(glob.glob(os.fspath(pattern))),
            isdir=os.path.isdir,
            listdir=lambda path: sorted(os.listdir(path)),
            makedirs=lambda path: os.makedirs(path, exist_ok=True),
            walk=os.walk,
        ),
    ),
    "compat": SimpleNamespace(
        as_text=_as_text,
        as_bytes=lambda value: value.encode() if isinstance(value, str) else value,
        v1=SimpleNamespace(io=SimpleNamespace(tf_record_iterator=_records)),
    ),
    "errors": SimpleNamespace(
        UnimplementedError=_Unimplemented, NotFoundError=FileNotFoundError
    ),
}
