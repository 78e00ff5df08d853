"""The common part of all tables of a benchmark: machine, peak, file of rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from experiments.benchmarks import peers, tables
from experiments.benchmarks.layer_figures import table
from experiments.benchmarks.timing import Measured, Timed, about, measure, peak
from experiments.run.record import save_figure

Row = dict[str, Any]
_QUIET = 2.0  # largest ratio of median to minimum on a quiet machine
_TIMES = "ms", "ms_min", "us_per_step", "sequences_per_s", "peak_share"


class Bench:
    """The common part of all tables: options, environment, and the file of rows."""

    def __init__(self, options):
        if options.rounds < 1:
            raise ValueError(f"rounds={options.rounds}, but it must be 1 or more")
        self.options, self.about = options, about()
        self.console = tables.console()
        self.rng = np.random.default_rng(options.seed)
        self.path = Path(options.out, "results.jsonl")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._told: set[tuple[str, str]] = set()
        self.peaks: dict[str, float] = {}
        self._measure_peak()
        self._introduce()

    def _measure_peak(self) -> None:
        """Measures the peak; repeated for each table, because other load lowers it."""
        for dtype in dict.fromkeys(("float32", *self.options.dtypes)):
            self.peaks[dtype] = max(self.peaks.get(dtype, 0.0), peak(dtype))

    def _introduce(self) -> None:
        about = self.about
        products = [
            f"{flops / 1e9:,.0f} GFLOP/s in {dtype}"
            for dtype, flops in self.peaks.items()
        ]
        settings = " ".join(f"{k}={v}" for k, v in about["settings"].items())
        lines = [
            f"{about['cpu']}, {about['cores']} cores; JAX on {about['device_kind']}",
            f"peak, matrix product of 2048 x 2048: {', '.join(products)}",
            f"allocator: {settings or 'no MALLOC_*, GLIBC_TUNABLES set'}",
        ]
        if self.options.peers:
            about["torch_threads"] = peers.threads()
            lines.append(f"PyTorch threads: {about['torch_threads']}")
        for line in lines:
            self.console.print(Text(line))

    def rows(
        self, facts: Row, made: dict[str, Callable[[], Timed]], flops: dict[str, float]
    ) -> list[Row]:
        """Times candidates, writes their rows, and prints refusals and warnings.

        Args:
          facts: of the layer: shape, batch, steps, kind, dtype, ….
          made: functions that create the candidates.
          flops: per call by candidate, if known.
        """
        self._measure_peak()
        found = measure(made, self.options.rounds, self.rng)
        best = max(self.peaks["float32"], self.peaks[facts["dtype"]])
        rows = [self._row(facts, name, found, flops.get(name), best) for name in made]
        with open(self.path, "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        for name, reason in found.refused.items():
            if (name, reason) not in self._told:
                self._told.add((name, reason))
                self._warn(f"{name}: {reason}")
        for row in rows:
            if row["ms"] and row["ms"] > _QUIET * row["ms_min"]:
                times = row["ms"] / row["ms_min"]
                self._warn(
                    f"warning: the median of {row['candidate']} is {times:.1f} x its "
                    "minimum, so its ratios are unreliable; use a quieter machine"
                )
        return rows

    def _row(self, facts: Row, name: str, found: Measured, flops, peak: float) -> Row:
        timed = found.timed.get(name, Timed(None))
        size = timed.temporary_bytes
        row = facts | dict.fromkeys(_TIMES)
        row |= {
            "candidate": name,
            "compile_s": timed.compile_s,
            "temporary_mb": None if size is None else size / 1e6,
            "peak_gflops": peak / 1e9,
            "times_as_fast": {},
            "refused": found.refused.get(name),
            "rounds": self.options.rounds,
            "environment": self.about,
        }
        if name not in found.seconds:
            return row
        seconds = found.seconds[name]
        median = float(np.median(seconds))
        return row | {
            "ms": 1000 * median,
            "ms_min": 1000 * float(seconds.min()),
            "us_per_step": 1e6 * median / facts["steps"],
            "sequences_per_s": facts["batch"] / median,
            "peak_share": flops / median / peak if flops else None,
            # Time of each peer divided by this one's, median over rounds.
            "times_as_fast": {
                peer: float(np.median(found.seconds[peer] / seconds))
                for peer in peers.NAMES
                if peer in found.seconds
            },
        }

    def save(self, name: str, figure: Any) -> None:
        """Writes a figure next to the rows, and prints both paths."""
        plot = self.path.with_name(name)
        save_figure(plot, figure)
        self.console.print(Text(f"written to {self.path}, {plot}"))

    def _warn(self, line: str) -> None:
        self.console.print(Text(line, style="yellow"))

    def table(self, facts: Row, made, flops) -> list[Row]:
        """As `rows`, and prints a table."""
        rows = self.rows(facts, made, flops)
        if any(row["ms"] for row in rows):
            self.console.print(table(rows))
        return rows
