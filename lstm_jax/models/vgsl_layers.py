"""VGSL layers as data: their notation, and their output shapes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

AXES = ("batch", "height", "width", "channels")


class Shape(NamedTuple):
    """Shape of a map between two layers; None if variable.

    Attributes:
      batch: maps per image; 1 except between two reshapes of the batch.
      height, width: in positions.
      channels: C.
    """

    batch: int
    height: int | None
    width: int | None
    channels: int


class Conv(NamedTuple):
    """`C(s|t|r|l|m|lr)y,x,d[,sy,sx][,dy,dx]`; pads k // 2, 1 less if k is even."""

    activation: str
    kernel: tuple[int, int]
    features: int
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    name: str = ""

    @property
    def padding(self) -> tuple[int, int]:
        """Padding on either side, pixels."""
        (y, x), (dy, dx) = self.kernel, self.dilation
        return dy * (y - 1) // 2, dx * (x - 1) // 2

    def size(self, axis: int, n: Any) -> Any:
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return _windows(n + 2 * self.padding[axis], reach, self.stride[axis])

    def out(self, shape: Shape) -> Shape:
        return _resized(self, shape)._replace(channels=self.features)

    def __str__(self) -> str:
        numbers = [*self.kernel, self.features]
        if self.stride != (1, 1) or self.dilation != (1, 1):
            numbers += self.stride
        if self.dilation != (1, 1):
            numbers += self.dilation
        return f"C{self.activation}{_braced(self.name)}{','.join(map(str, numbers))}"


class Pool(NamedTuple):
    """`Mpy,x[,sy,sx]`: max-pooling; the default stride is the window's size."""

    window: tuple[int, int]
    stride: tuple[int, int]
    name: str = ""

    def size(self, axis: int, n: Any) -> Any:
        return _windows(n, self.window[axis], self.stride[axis])

    def out(self, shape: Shape) -> Shape:
        return _resized(self, shape)

    def __str__(self) -> str:
        stride = () if self.stride == self.window else self.stride
        return f"Mp{_braced(self.name)}{','.join(map(str, (*self.window, *stride)))}"


class Rescale(NamedTuple):
    """`Sy,x`: moves windows of y by x into channels."""

    window: tuple[int, int]
    name: str = ""

    def size(self, axis: int, n: Any) -> Any:
        return _windows(n, self.window[axis], self.window[axis])

    def out(self, shape: Shape) -> Shape:
        y, x = self.window
        return _resized(self, shape)._replace(channels=shape.channels * y * x)

    def __str__(self) -> str:
        return f"S{_braced(self.name)}{self.window[0]},{self.window[1]}"


class Reshape(NamedTuple):
    """`Sd(axb)e,f`: splits axis d into a x b; moves a to axis e, b to axis f.

    Axes are batch, height, width, channels; 0 for a or b means the rest. A part that
    leaves d becomes the slow half of the axis that it joins; if d = e = f, the two
    parts are swapped.
    """

    axis: int
    parts: tuple[int, int]
    to: tuple[int, int]
    name: str = ""

    def cut(self, n: int | None) -> tuple[int, int]:
        """(a, b) for an axis of size n."""
        a, b = self.parts
        if n is None:
            raise ValueError(
                f"the {AXES[self.axis]} is variable and cannot be cut; give it a size "
                "in the first four numbers, or sum it up by an L...s"
            )
        a, b = a or n // b, b or n // a
        if a * b != n:
            raise ValueError(
                f"the {AXES[self.axis]} is {n}, which {self.parts[0]}x{self.parts[1]} "
                "does not make"
            )
        return a, b

    def out(self, shape: Shape) -> Shape:
        a, b = self.cut(shape[self.axis])
        if self.to == (self.axis, self.axis):
            return shape
        stays, moves = (a, b) if self.to[0] == self.axis else (b, a)
        target = self.to[1] if self.to[0] == self.axis else self.to[0]
        if shape[target] is None and moves != 1:
            raise ValueError(
                f"the {AXES[target]} is variable and cannot take in another axis"
            )
        sizes = list(shape)
        sizes[self.axis] = stays
        if sizes[target] is not None:
            sizes[target] *= moves
        return Shape(*sizes)

    def __str__(self) -> str:
        (a, b), (e, f) = self.parts, self.to
        return f"S{_braced(self.name)}{self.axis}({a}x{b}){e},{f}"


class Recurrent(NamedTuple):
    """`(L|G)(f|r|b)(x|y)[s]n`: an LSTM or a GRU along x or y, each line separately.

    Forward, reverse or bidirectional; s keeps the last step of each direction.
    """

    cell: str
    direction: str
    axis: str
    last: bool
    features: int
    name: str = ""

    def size(self, axis: int, n: Any) -> Any:
        return n if not self.last or "yx"[axis] != self.axis else 0 * n + 1

    def out(self, shape: Shape) -> Shape:
        if self.last:
            shape = shape._replace(**{"y": {"height": 1}, "x": {"width": 1}}[self.axis])
        return shape._replace(channels=self.features * (1 + (self.direction == "b")))

    def __str__(self) -> str:
        last = "s" * self.last
        words = self.cell, self.direction, self.axis, last, _braced(self.name)
        return "".join(words) + str(self.features)


class Full(NamedTuple):
    """`F(s|t|r|l|m)n`: a fully connected layer on a flattened map of fixed size."""

    activation: str
    features: int
    name: str = ""

    def size(self, axis: int, n: Any) -> Any:
        return 0 * n + 1

    def out(self, shape: Shape) -> Shape:
        for name in ("height", "width"):
            if getattr(shape, name) is None:
                raise ValueError(f"the {name} is variable, and F wants it fixed")
        return Shape(shape.batch, 1, 1, self.features)

    def __str__(self) -> str:
        return f"F{self.activation}{_braced(self.name)}{self.features}"


class Dropout(NamedTuple):
    """`Do[p[,1|2]]`: dropout of single numbers, or in 2 dimensions of channels."""

    rate: float = 0.5
    dimensions: int = 1
    name: str = ""

    def out(self, shape: Shape) -> Shape:
        return shape

    def __str__(self) -> str:
        two = ",2" if self.dimensions == 2 else ""
        plain = self.rate == 0.5 and not two
        return f"Do{_braced(self.name)}" + ("" if plain else f"{self.rate!r}{two}")


class GroupNorm(NamedTuple):
    """`Gngroups`: group norm whose statistics exclude padding."""

    groups: int
    name: str = ""

    def out(self, shape: Shape) -> Shape:
        if shape.channels % self.groups:
            raise ValueError(
                f"{shape.channels} channels cannot be cut into {self.groups} groups"
            )
        return shape

    def __str__(self) -> str:
        return f"Gn{_braced(self.name)}{self.groups}"


class Identity(NamedTuple):
    """`I`: the identity, for a branch without layers."""

    name: str = ""

    def out(self, shape: Shape) -> Shape:
        return shape

    def __str__(self) -> str:
        return f"I{_braced(self.name)}"


class Series(NamedTuple):
    """`[...]`: layers in series."""

    layers: tuple[Any, ...]

    def size(self, axis: int, n: Any) -> Any:
        for layer in self.layers:
            n = size(layer, axis, n)
        return n

    def out(self, shape: Shape) -> Shape:
        for layer in self.layers:
            shape = layer.out(shape)
        return shape

    def __str__(self) -> str:
        return f"[{' '.join(map(str, self.layers))}]"


class Parallel(NamedTuple):
    """`(...)`: layers in parallel on the same map; channels are concatenated."""

    layers: tuple[Any, ...]

    def size(self, axis: int, n: Any) -> Any:
        return size(self.layers[0], axis, n)

    def out(self, shape: Shape) -> Shape:
        return self.concatenated([layer.out(shape) for layer in self.layers])

    def concatenated(self, outs: list[Shape]) -> Shape:
        """The output shape, of the output shapes of the branches.

        Raises:
          ValueError: heights or widths differ.
        """
        first, n = self.layers[0], np.arange(1, 128)
        for layer, out in zip(self.layers[1:], outs[1:], strict=True):
            # Where a size is variable, two formulas agree if they do for many sizes.
            same = out[:3] == outs[0][:3] and all(
                np.array_equal(size(layer, axis, n), size(first, axis, n))
                for axis, fixed in enumerate(outs[0][1:3])
                if fixed is None
            )
            if not same:
                raise ValueError(
                    f"its branches {self.layers[0]} and {layer} give maps of different "
                    "sizes, which cannot lie side by side"
                )
        return outs[0]._replace(channels=sum(out.channels for out in outs))

    def __str__(self) -> str:
        return f"({' '.join(map(str, self.layers))})"


class Output(NamedTuple):
    """`O(2|1|0)(l|s|c)n`: a map, a sequence or one vector of n numbers.

    Logits for logistic, softmax, or CTC with the blank at index 0. The steps of a
    sequence are columns, flattened over the height.
    """

    dimensions: int
    kind: str
    features: int
    name: str = ""

    def out(self, shape: Shape) -> Shape:
        if shape.batch != 1:
            raise ValueError(f"an image has become {shape.batch} of the batch")
        if self.dimensions == 1 and shape.height is None:
            raise ValueError(
                "the height is variable, but O1 gives a row of steps; sum it up "
                "before, as by Lfys64"
            )
        if self.dimensions == 0 and shape[1:3] != (1, 1):
            sizes = " and ".join(str(n or "variable") for n in shape[1:3])
            raise ValueError(
                f"height and width are {sizes}, but O0 gives one vector; sum them up "
                "before, as by Lfys64 Lfxs64"
            )
        height = shape.height if self.dimensions == 2 else 1
        return Shape(1, height, shape.width, self.features)

    def __str__(self) -> str:
        return f"O{_braced(self.name)}{self.dimensions}{self.kind}{self.features}"


def size(layer: Any, axis: int, n: Any) -> Any:
    """Size along y (axis 0) or x (1) of a layer's output, for an input of n."""
    return layer.size(axis, n) if hasattr(layer, "size") else n


def _windows(n: Any, reach: int, stride: int) -> Any:
    """Number of windows that fit into n; at least 0."""
    room = n - reach + stride
    if isinstance(room, jax.Array):  # whose // rounds down, at 5 operations for one
        return jax.lax.div(jnp.maximum(room, 0), room.dtype.type(stride))
    return (room > 0) * room // stride  # of an int, or an array of them


def _resized(layer: Any, shape: Shape) -> Shape:
    height, width = (
        None if n is None else size(layer, axis, n) for axis, n in enumerate(shape[1:3])
    )
    return shape._replace(height=height, width=width)


def _braced(name: str) -> str:
    return f"{{{name}}}" if name else ""
