"""How numbers are printed for people: on the console and in reports."""

# Rates: fractions in files, percentages for people. F1, IoU, AP and other scores of
# [0, 1] are usually given as fractions.
_RATES = {"accuracy", "top5_accuracy", "pixel_accuracy", "cer", "wer", "exact"}


def is_rate(name: str) -> bool:
    """Whether a metric, such as "svc.accuracy", is printed as a percentage."""
    return name.rpartition(".")[2] in _RATES


def number(value: float | int | None, name: str = "") -> str:
    """A number as text: `98.9 %`, `0.4321`, `1,797`.

    Args:
      value: an integer, a float, or None, which becomes a dash.
      name: of the metric; rates are printed as percentages.
    """
    if value is None:
        return "–"
    if is_rate(name):
        return percent(float(value))
    if isinstance(value, int):
        return f"{value:,}"
    value = float(value)
    usual = value == 0 or 1e-3 <= abs(value) < 1e3
    return f"{value:.4f}" if usual else f"{value:.3g}"


def percent(fraction: float) -> str:
    """`98.9 %`; below 10 % with two decimals: `0.82 %`."""
    percentage = 100 * fraction
    return f"{percentage:.{1 if abs(percentage) >= 9.995 else 2}f} %"


def mean_and_sd(mean: float, sd: float | None, name: str = "") -> str:
    """`98.9 ± 0.3 %`, `3.512 ± 0.040`: both with the same decimals.

    Args:
      mean: of several runs.
      sd: standard deviation, or None where there is only one run.
      name: of the metric.
    """
    if is_rate(name):
        text, unit = percent(mean).split()
        sd, unit = None if sd is None else 100 * sd, f" {unit}"
    else:
        text, unit = _four_digits(mean), ""
    decimals = len(text.partition(".")[2])
    spread = "" if sd is None else f" ± {sd:,.{decimals}f}"
    return f"{text}{spread}{unit}"


def _four_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:#.4g}".rstrip(".")
