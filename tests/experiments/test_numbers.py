"""Numbers for people: percentages of rates, four digits of anything else."""

import pytest

from experiments.numbers import mean_and_sd, number


@pytest.mark.parametrize(
    "value, name, text",
    [
        (None, "", "–"),
        (0.0, "", "0.0000"),
        (0.97222, "", "0.9722"),
        (-0.00012, "", "-0.00012"),
        (12345.6, "", "1.23e+04"),
        (1234567, "", "1,234,567"),
        (0.98889, "accuracy", "98.9 %"),
        (1.0, "svc.accuracy", "100.0 %"),
        (0.00824, "cer", "0.82 %"),
        (0.1, "wer", "10.0 %"),
        (0.09996, "exact", "10.0 %"),
        (0, "cer", "0.00 %"),
        (None, "accuracy", "–"),
        (0.98889, "macro.f1", "0.9889"),
    ],
)
def test_numbers(value, name, text):
    assert number(value, name) == text


@pytest.mark.parametrize(
    "mean, sd, name, text",
    [
        (0.98889, 0.00291, "accuracy", "98.9 ± 0.3 %"),
        (0.98889, None, "accuracy", "98.9 %"),
        (3.5, 0.04, "mae", "3.500 ± 0.040"),
        (123456.0, 1234.0, "mse", "123,456 ± 1,234"),
    ],
)
def test_means_and_standard_deviations(mean, sd, name, text):
    assert mean_and_sd(mean, sd, name) == text
