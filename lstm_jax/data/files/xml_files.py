"""Parses XML files of unknown origin."""

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from lstm_jax.data.dataset import DataError


class _Tree(ElementTree.TreeBuilder):
    def doctype(self, *_: str | None) -> None:
        raise DataError("it has a DOCTYPE, whose entities are not resolved: remove it")


def parse_xml(file: Path) -> Element:
    """The root element of an XML file.

    Raises:
      DataError: the file is missing, is not XML, or declares entities.
    """
    try:
        parser = ElementTree.XMLParser(target=_Tree())
        return ElementTree.fromstring(file.read_bytes(), parser)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file}: not a readable XML file ({reason})") from error
