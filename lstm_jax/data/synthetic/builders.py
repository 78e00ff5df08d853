"""This project's tfds builders by name."""

from lstm_jax.data.synthetic.digits import Digits, DigitsAngle
from lstm_jax.data.synthetic.line_builder import TextLines
from lstm_jax.data.synthetic.moving import MovingDigit, MovingDigits
from lstm_jax.data.synthetic.scene_builders import (
    DigitsBoxes,
    DigitsMasks,
    MovingDigitsBoxes,
)

_ALL = Digits, DigitsAngle, MovingDigits, MovingDigit, DigitsMasks, DigitsBoxes
BUILDERS = {one.name: one for one in (*_ALL, MovingDigitsBoxes, TextLines)}
