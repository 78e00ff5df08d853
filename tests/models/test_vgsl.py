"""VGSL: published specs with their sizes and params, and errors that point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from selection import slow_but

from lstm_jax.models.vgsl import SpecError, parse
from lstm_jax.models.vgsl_layers import Identity
from lstm_jax.models.vgsl_net import VGSLNet


def conv(y, x, inputs, outputs):
    return y * x * inputs * outputs + outputs


def lstm(inputs, width, directions=1):
    return directions * 4 * width * (inputs + width + 1)


def gru(inputs, width):
    return 3 * width * (inputs + width + 1) + width


def dense(inputs, outputs):
    return inputs * outputs + outputs


def norm(channels):
    return 2 * channels


def kraken_blocks():
    layers = (1, 13, 32), (32, 13, 32), (32, 9, 64), (64, 9, 64)
    return sum(conv(3, x, i, o) for i, x, o in layers)


# Each a spec, columns of an image, steps that come out, and params.
PUBLISHED = {
    "Tesseract's documentation": (
        "[1,0,0,3 Ct5,5,16 Mp3,3 Lfys64 Lfx128 Lrx128 Lfx256 O1c105]",
        (100, 33),
        conv(5, 5, 3, 16)
        + lstm(16, 64)
        + lstm(64, 128)
        + lstm(128, 128)
        + lstm(128, 256)
        + dense(256, 105),
    ),
    "Tesseract's documentation, strips of pixels": (
        "[1,1,0,48 Lbx256 O1c105]",
        (77, 77),
        lstm(48, 256, 2) + dense(512, 105),
    ),
    "tesstrain": (
        "[1,36,0,1 Ct3,3,16 Mp3,3 Lfys48 Lfx96 Lrx96 Lfx256 O1c111]",
        (101, 33),
        conv(3, 3, 1, 16)
        + lstm(16, 48)
        + lstm(48, 96)
        + lstm(96, 96)
        + lstm(96, 256)
        + dense(256, 111),
    ),
    "Tesseract's tutorial": (
        "[1,40,0,1 Ct5,5,16 Mp3,3 Lfys64 Lfx128 Lrx128 Lfx256 O1c105]",
        (600, 200),
        conv(5, 5, 1, 16)
        + lstm(16, 64)
        + lstm(64, 128)
        + lstm(128, 128)
        + lstm(128, 256)
        + dense(256, 105),
    ),
    "the street signs of FSNS": (
        "[1,150,600,3 S2(4x150)0,2 Ct5,5,16 Mp2,2 Ct5,5,64 Mp3,3 ([Lrys64 Lbx128] "
        "[Lbys64 Lbx128] [Lfys64 Lbx128]) S3(3x0)2,3 Lfx128 Lrx128 S0(1x4)0,3 Do "
        "Lfx256 O1c134]",
        (600, 75),
        conv(5, 5, 3, 16)
        + conv(5, 5, 16, 64)
        + (2 * lstm(64, 64) + lstm(64, 64, 2))
        + (2 * lstm(64, 128, 2) + lstm(128, 128, 2))
        + (lstm(256, 128) + lstm(128, 128))
        + lstm(4 * 128, 256)
        + dense(256, 134),
    ),
    "kraken's documentation": (
        "[1,48,0,1 Cr3,3,32 Mp2,2 Cr3,3,64 Mp2,2 S1(1x12)1,3 Lbx100 Do O1c103]",
        (203, 50),
        conv(3, 3, 1, 32)
        + conv(3, 3, 32, 64)
        + lstm(12 * 64, 100, 2)
        + dense(200, 103),
    ),
    "kraken's documentation, columns": (
        "[1,48,0,1 S1(1x48)1,3 Lbx100 O1c103]",
        (60, 60),
        lstm(48, 100, 2) + dense(200, 103),
    ),
    "kraken's documentation, strips of pixels": (
        "[1,1,0,48 Lbx100 Do O1c59]",
        (60, 60),
        lstm(48, 100, 2) + dense(200, 59),
    ),
    "kraken's default": (
        "[1,120,0,1 Cr3,13,32 Do0.1,2 Mp2,2 Cr3,13,32 Do0.1,2 Mp2,2 Cr3,9,64 Do0.1,2 "
        "Mp2,2 Cr3,9,64 Do0.1,2 S1(1x0)1,3 Lbx200 Do0.1,2 Lbx200 Do0.1,2 Lbx200 Do "
        "O1c80]",
        (1000, 125),
        kraken_blocks()
        + lstm(15 * 64, 200, 2)
        + 2 * lstm(400, 200, 2)
        + dense(400, 80),
    ),
    "kraken's older default": (
        "[1,48,0,1 Cr4,2,32,4,2 Gn32 Cr4,2,64,1,1 Gn32 Mp4,2,4,2 Cr3,3,128,1,1 Gn32 "
        "Mp1,2,1,2 S1(1x0)1,3 Lbx256 Do0.5 Lbx256 Do0.5 Lbx256 Do0.5 O1c100]",
        # An even kernel loses a column: 200, 100, 99, 49, 24; and of 48 rows, 12, 11, 2
        (200, 24),
        (conv(4, 2, 1, 32) + norm(32))
        + (conv(4, 2, 32, 64) + norm(64))
        + (conv(3, 3, 64, 128) + norm(128))
        + lstm(2 * 128, 256, 2)
        + 2 * lstm(512, 256, 2)
        + dense(512, 100),
    ),
    "kraken's segmenter": (
        "[1,1800,0,3 Cr7,7,64,2,2 Gn32 Cr3,3,128,2,2 Gn32 Cr3,3,128 Gn32 Cr3,3,256 "
        "Gn32 Cr3,3,256 Gn32 Lbx32 Lby32 Cr1,1,32 Gn32 Lby32 Lbx32 O2l4]",
        (101, 26),
        (conv(7, 7, 3, 64) + norm(64))
        + (conv(3, 3, 64, 128) + conv(3, 3, 128, 128) + 2 * norm(128))
        + (conv(3, 3, 128, 256) + conv(3, 3, 256, 256) + 2 * norm(256))
        + (lstm(256, 32, 2) + lstm(64, 32, 2))
        + (conv(1, 1, 64, 32) + norm(32))
        + (lstm(32, 32, 2) + lstm(64, 32, 2))
        + dense(64, 4),
    ),
    "Calamari's default": (
        "[1,48,0,1 Cr3,3,40 Mp2,2 Cr3,3,60 Mp2,2 S1(1x0)1,3 Lbx200 Do O1c90]",
        (333, 83),
        conv(3, 3, 1, 40) + conv(3, 3, 40, 60) + lstm(12 * 60, 200, 2) + dense(400, 90),
    ),
    "PyLaia's default": (
        "[1,128,0,1 Clr3,3,16 Mp2,2 Clr3,3,16 Mp2,2 Clr3,3,32 Mp2,2 Clr3,3,32 "
        "S1(1x0)1,3 Do Lbx256 Do Lbx256 Do Lbx256 Do O1c80]",
        (1000, 125),
        (conv(3, 3, 1, 16) + conv(3, 3, 16, 16))
        + (conv(3, 3, 16, 32) + conv(3, 3, 32, 32))
        + lstm(16 * 32, 256, 2)
        + 2 * lstm(512, 256, 2)
        + dense(512, 80),
    ),
    "a column over its height": (
        "[1,48,0,1 Cr3,3,32 Mp2,2 Lbx128 O1c37]",
        (40, 20),
        conv(3, 3, 1, 32) + lstm(32, 128, 2) + dense(24 * 256, 37),
    ),
    "one answer": (
        "[1,28,28,1 Cr{first}3,3,8,2,2,1,1 S2,2 (Gfy8 [Lfy4 I]) Ft16 Fm{last}12 O0s10]",
        (28, 1),
        conv(3, 3, 1, 8)
        + (gru(32, 8) + lstm(32, 4))
        + dense(7 * 7 * 12, 16)
        + dense(16, 12)
        + dense(12, 10),
    ),
}


@pytest.mark.parametrize(
    "name",
    slow_but(
        PUBLISHED,
        "Tesseract's documentation",
        "kraken's default",
        "PyLaia's default",
        "a column over its height",
        "one answer",
    ),
)
def test_published_specs(name):
    text, (width, steps), params = PUBLISHED[name]
    spec = parse(text)
    assert parse(str(spec)) == spec
    height = spec.height or 30
    image = jax.ShapeDtypeStruct((2, height, width, spec.channels), jnp.float32)
    make = VGSLNet(spec).init_with_output
    outputs, made = jax.eval_shape(make, jax.random.key(0), image)
    assert sum(leaf.size for leaf in jax.tree.leaves(made)) == params
    final = spec.final
    assert final.channels == outputs.shape[-1] == spec.output.features
    if spec.output.dimensions:
        assert outputs.shape[0] == 2 and outputs.shape[-2] == steps
        assert final.width in (None, steps)
    if "FSNS" in name:
        with pytest.raises(ValueError, match="S2.4x150.0,2 moves places between batch"):
            spec.steps(width)
    else:
        widths = np.array([width, 1, width])
        assert spec.steps(width) == steps == spec.steps(widths)[2]
        assert np.asarray(spec.steps(jnp.asarray(widths)))[0] == steps


def test_what_is_written_back_is_short():
    text = (
        "[1,48,0,1 Cr3,3,8,1,1 Clr{a}3,3,8,1,1,2,2 Mp2,2,2,2 Mp3,3,2,2 Do0.50,1 Do0.2 "
        "([Lfx3][Lrx4])   Gn{g}7 S{s}1(1x0)1,3 O{o}1s4 ]"
    )
    assert str(parse(text)) == (
        "[1,48,0,1 Cr3,3,8 Clr{a}3,3,8,1,1,2,2 Mp2,2 Mp3,3,2,2 Do Do0.2 "
        "([Lfx3] [Lrx4]) Gn{g}7 S{s}1(1x0)1,3 O{o}1s4]"
    )
    assert parse("[1,48,0,1 Lfys5]").output is None


def test_another_output():
    spec = parse("[1,48,0,1 Lfys5 O1c37]")
    wide = spec.with_output(spec.output._replace(features=99))
    assert str(wide) == "[1,48,0,1 Lfys5 O1c99]"


MALFORMED = {  # the character at fault comes after "!"
    "!Lfx5": "a spec begins with [",
    "!": "a spec begins with [",
    "[1,48,0! Lfx5]": "found ' ': after it comes the channels",
    "[1,48,!x,1 Lfx5]": "expected a number, the width; found 'x'",
    "[1,48,0,!0 Lfx5]": "the channels is 0; expected 1 or more",
    "[1,48,0,1 !Xr3,3,32]": "no layer begins with 'X'",
    "[1,48,0,1 C!q3,3,32]": "its activation, s, t, r, l or m; found 'q'",
    "[1,48,0,1 Cr3,3!]": "expected ',', found ']': its features comes after it",
    "[1,48,0,1 Cr3,!0,32]": "its width is 0; expected 1 or more",
    "[1,48,0,1 Cr3,3,32,2! Mp2,2]": "in x comes after it",
    "[1,48,0,1 C!Tr2,2,8,2,2]": "transposed convolutions are not built",
    "[1,48,0,1 Cr!{3}3,3,8]": "a name is letters, digits and _ in braces",
    "[1,48,0,1 Cr{a}3,3,8 Mp!{a}2,2]": "another layer is called 'a'",
    "[1,48,0,1 Cr3,3,8!Mp2,2]": "a space comes between two layers",
    "[1,48,0,1 L!qx5]": "its direction, f, r or b; found 'q'",
    "[1,48,0,1 Lb!z5]": "its axis, x or y; found 'z'",
    "[1,48,0,1 Lbx!]": "its features; found ']'",
    "[1,48,0,1 L!S5]": "LS is not built here",
    "[1,48,0,1 Lbx!c5]": "the legacy LSTMs",
    "[1,48,0,1 Lbx!99999999999]": "its features is 99999999999",
    "[1,48,0,1 S1(!00000000000048x0)1,3]": "a number has at most 9 digits",
    "[1,48,0,1 Lbx!\u0663]": "its features; found '\u0663'",
    "[1,48,0,1 Do!\u0663]": "the share that is dropped is",
    "[1,4!\u0668,0,1 Lbx5]": "after it comes the width",
    "[1,48,0,1 Lbx!{\u00e9}5]": "a name is letters, digits and _ in braces",
    f"[1,48,0,1 {'(' * 32}!(Lfx5{')' * 33}]": "more than 32 brackets within each other",
    "[1,48,0,1 Do!1.5]": "is 1.5, not in [0, 1)",
    "[1,48,0,1 Do0.1,!3]": "its dimensions, 1 or 2; found '3'",
    "[1,48,0,1 Cr3,3,6 !Gn4]": "6 channels cannot be cut into 4 groups",
    "[1,48,0,1 !S1(1x47)1,3 Lbx5]": "the height is 48, which 1x47 does not make",
    "[1,0,0,1 !S1(1x0)1,3 Lbx5]": "the height is variable and cannot be cut",
    "[1,48,0,1 S1(!0x0)1,3]": "one of the two parts is not 0",
    "[1,48,0,1 S1(1x0)!2,3]": "one of the two parts stays on axis 1",
    "[1,48,0,1 S!4(1x0)4,3]": "axes are 0 batch, 1 height",
    "[1,8,0,1 Mp4,4 !Mp4,4]": "nothing is left of a map of 2xany",
    "[1,48,0,1 !([Lfx5] [Mp2,2])]": "give maps of different sizes",
    "[1,48,0,1 !(Lfys5 Lfx5)]": "give maps of different sizes",
    "[1,48,0,1 (Lfx5 !O1c5)]": "an output stands at the end",
    "[1,48,0,1 !()]": "there is no layer in these brackets",
    "[1,48,0,1 (Lfx5!]": "expected ')', found ']': the bracket of character 11",
    "[1,48,0,1 Lfx5!": "expected ']', found the end",
    "[1,48,0,1 Lfx5 O1c5 !Lfx5]": "nothing follows the output",
    "[1,48,0,1 Lfx5 O!3c5]": "its dimensions, 2, 1 or 0",
    "[1,48,0,1 Lfx5 O2!c5]": "CTC reads a sequence",
    "[1,48,0,1 Lfx5 O1!q5]": "its kind, l, s or c",
    "[1,0,0,1 Lfx5 !O1c5]": "the height is variable, but O1 gives a row",
    "[1,48,0,1 Lfys5 !O0s5]": "height and width are 1 and variable",
    "[1,48,0,1 !Fs5]": "the width is variable, and F wants it fixed",
    "[1,48,0,1 Lfx5] !x": "the spec has ended here",
}


@pytest.mark.parametrize("text", MALFORMED)
def test_an_error_points_at_the_character(text):
    position, whole = text.index("!"), text.replace("!", "")
    with pytest.raises(SpecError) as caught:
        parse(whole)
    assert caught.value.position == position
    first, shown, caret = str(caught.value).splitlines()
    assert first.startswith(f"spec: character {position + 1}: ")
    assert MALFORMED[text] in first
    assert shown.strip() in whole and caret.strip() == "^"
    assert (shown + " ")[len(caret) - 1] == (whole + " ")[position]


@pytest.mark.parametrize("brackets", ["()", "[]"])
def test_nested_brackets_compute_each_shape_once(brackets, monkeypatch):
    calls, out = [], Identity.out
    monkeypatch.setattr(Identity, "out", lambda *args: calls.append(1) or out(*args))
    left, right = brackets
    spec = parse(f"[1,0,0,1 {(left + 'I ') * 32}I{right * 32}]")
    assert len(calls) == 33
    assert parse(str(spec)) == spec and spec.steps(7) == 7


@pytest.mark.parametrize("brackets", ["()", "[]"])
def test_deep_brackets_are_refused_in_a_sentence(brackets):
    left, right = brackets
    with pytest.raises(SpecError, match="more than 32 brackets within each other"):
        parse(f"[1,48,0,1 {left * 5000}Lfx5{right * 5000}]")


def test_a_long_spec_is_shown_around_the_fault():
    text = f"[1,48,0,1 {'Cr3,3,32 ' * 30}Lqx5 {'Lfx5 ' * 30}]"
    with pytest.raises(SpecError) as caught:
        parse(text)
    _, shown, caret = str(caught.value).splitlines()
    assert len(shown) < 70 and shown[len(caret) - 1] == "q"
