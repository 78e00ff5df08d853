"""Parses XML files of unknown origin."""

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from lstm_jax.data.dataset import DataError

_LARGEST = 64 << 20  # bytes of XML


class _Tree(ElementTree.TreeBuilder):
    def doctype(self, *_: str | None) -> None:
        raise DataError("it has a DOCTYPE, whose entities are not resolved: remove it")


def read_bounded(file: Path) -> bytes:
    """The content of an XML file.

    Raises:
      DataError: the file is missing or too large.
    """
    try:
        if (size := file.stat().st_size) > _LARGEST:
            raise DataError(
                f"{file}: {size / 2**20:,.0f} MiB of XML, over the limit of "
                f"{_LARGEST >> 20} MiB"
            )
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error


def parse_xml(file: Path) -> Element:
    """The root element of an XML file.

    Raises:
      DataError: the file is missing, too large, not XML, or declares entities.
    """
    content = read_bounded(file)
    try:
        parser = ElementTree.XMLParser(target=_Tree())
        return ElementTree.fromstring(content, parser)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file}: not a readable XML file ({reason})") from error
