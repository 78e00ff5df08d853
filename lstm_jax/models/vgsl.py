"""VGSL, a compact specification language for networks of convolutions and LSTMs.

    [1,48,0,1 Cr3,3,32 Mp2,2 S1(1x0)1,3 Lbx128 Do O1c37]

The first four numbers are batch, height, width and channels of the input, 0 if
variable; each word is a layer. `parse` makes a `Spec`, `str` writes it back,
`Spec.steps` computes the number of output steps from the width, and
`lstm_jax.models.vgsl_net.VGSLNet` is the network.
"""

from typing import Any, NamedTuple

from lstm_jax.models.vgsl_layers import AXES, Output, Reshape, Series, Shape
from lstm_jax.models.vgsl_parser import Scanner, SpecError, read_layers

__all__ = ["Spec", "SpecError", "flat", "parse"]


class Spec(NamedTuple):
    """A parsed specification of a network.

    Attributes:
      batch: part of VGSL, not used.
      height, width: of images, pixels; 0: variable.
      channels: of images; with height 1 and more than 3 channels, each column of a grey
        image is one position, its pixels are the channels.
      layers: all but the last word.
      output: the last word, or None.
    """

    batch: int
    height: int
    width: int
    channels: int
    layers: tuple[Any, ...]
    output: Output | None

    @property
    def input(self) -> Shape:
        """The input shape of the first layer."""
        return Shape(1, self.height or None, self.width or None, self.channels)

    @property
    def final(self) -> Shape:
        """The output shape of the last layer."""
        return Series(self.all).out(self.input)

    @property
    def all(self) -> tuple[Any, ...]:
        """The layers and the output."""
        return self.layers + ((self.output,) if self.output else ())

    def steps(self, widths: Any) -> Any:
        """Number of output steps of images of a given width.

        Args:
          widths: pixels; an int, or an integer array of any shape.

        Returns:
          The same type and shape; 0 if an image is narrower than a window.

        Raises:
          ValueError: a layer moves positions between width and batch, so that steps no
            longer correspond to columns.
        """
        for layer in flat(self.layers):
            if isinstance(layer, Reshape) and {0, 2} & {layer.axis, *layer.to}:
                raise ValueError(
                    f"spec: {layer} moves places between batch and width: there is no "
                    "number of valid steps; give images of one width, without lengths"
                )
        return Series(self.layers).size(1, widths)

    def with_output(self, output: Output) -> "Spec":
        """The same network with another output layer, such as for another alphabet.

        Raises:
          SpecError: it does not fit the layer before it.
        """
        return parse(str(self._replace(output=output)))

    def __str__(self) -> str:
        numbers = ",".join(map(str, self[:4]))
        return f"[{' '.join((numbers, *map(str, self.all)))}]"


def parse(text: str) -> Spec:
    """Parses a VGSL string in Tesseract's or kraken's dialect.

    >>> spec = parse("[1,48,0,1 Cr3,3,32 Mp2,2 S1(1x0)1,3 Lbx128 Do O1c37]")
    >>> spec.steps(101), spec.final.channels
    (50, 37)
    >>> str(spec)
    '[1,48,0,1 Cr3,3,32 Mp2,2 S1(1x0)1,3 Lbx128 Do O1c37]'

    Args:
      text: words as the classes of `vgsl_layers` have them; a name in braces may
        follow the letters of a layer.

    Returns:
      The Spec; `parse(str(spec)) == spec`.

    Raises:
      SpecError: the string is malformed, or a layer does not fit the one before it;
        the message names the character and points at it.

    Reference: Tesseract's documentation, VGSL Specs; kraken's documentation, VGSL
    network specification. Departs: a kernel of even size is padded as in kraken, 1 less
    than in Tesseract; of a reversed direction, s keeps the step read last, as in
    Tesseract, where kraken keeps the one at the end of the line; O1 reads a column
    over all of its height, where kraken wants the height to be 1. Not here: LS, LE, the
    legacy LSTMs of kraken, transposed convolutions, additions.
    """
    scan = Scanner(text)
    scan.spaces()
    scan.expect("[", "a spec begins with [")
    numbers = []
    for k, name in enumerate(AXES):
        if k:
            scan.expect(",", f"after it comes the {name}: [batch,height,width,channels")
        numbers.append(scan.number(f"the {name}", least=1 if k == 3 else 0))
    shape = Shape(1, *(n or None for n in numbers[1:3]), numbers[3])
    layers, _ = read_layers(scan, shape, "]")
    scan.expect("]", "a spec ends with ]")
    scan.spaces()
    scan.end()
    output = layers.pop() if layers and isinstance(layers[-1], Output) else None
    return Spec(*numbers, tuple(layers), output)


def flat(layers: tuple[Any, ...]) -> list[Any]:
    """All layers in order, without brackets."""
    found = []
    for layer in layers:
        inside = getattr(layer, "layers", None)
        found += [layer] if inside is None else flat(inside)
    return found
