"""What a scrape answers, for one process or for all of a node. Importing it loads prometheus_client."""

import fcntl
import os
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from dspex.observability.optimization_figures import OptimizationFigures, Spread

_OF_PROCESS = re.compile(r"gauge_live\w+_(\d+)\.db")
# The oldest process says since when the node counts; of the others the sum says what the node takes.
_LEAST = "process_start_time_seconds"
# A sum over those that live would fall when one dies, so each counts its own.
_COUNTED = "process_cpu_seconds"


def exposition(
    registry: CollectorRegistry,
    directory: Path | None,
    accept: str,
    optimizations: OptimizationFigures | None = None,
) -> tuple[bytes, str]:
    """The metrics in the format that the Accept header asks for, and its content type."""
    shown = CollectorRegistry()
    if optimizations is not None:
        shown.register(_Optimizations(optimizations))
    encode, content_type = choose_encoder(accept)
    if directory is None:
        shown.register(registry)
        shown.register(_Processes(None))
        return encode(shown), content_type
    MultiProcessCollector(shown, str(directory))  # type: ignore[no-untyped-call]
    shown.register(_Processes(directory))
    with _locked(directory, fcntl.LOCK_SH):
        return encode(shown), content_type


def forget_process(pid: int, directory: Path) -> None:
    """Drops the gauges of a process that ended, and adds what it counted to that of all that ended.

    A file for each would make scrapes slower with every process that dies. Raises OSError, BlockingIOError while a
    scrape reads: what it counted stays where it is then, and counts.
    """
    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
    with _locked(directory, fcntl.LOCK_EX | fcntl.LOCK_NB):
        for kind in ("counter", "histogram"):
            its = directory / f"{kind}_{pid}.db"
            if its.exists():
                _add(its, directory / f"{kind}_ended.db")
                its.unlink()


def _add(counted: Path, to: Path) -> None:
    total: dict[str, tuple[float, float]] = {}
    for file in (to, counted):
        # Empty: its process was killed before it wrote anything.
        if file.exists() and file.stat().st_size:
            for key, value, at, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
                total[key] = (total.get(key, (0.0, 0.0))[0] + value, at)
    entries = []
    for key, (value, at) in total.items():
        name = key.encode()
        padded = name + b" " * (8 - (len(name) + 4) % 8)
        entries.append(struct.pack(f"i{len(padded)}sdd", len(name), padded, value, at))
    body = b"".join(entries)
    # Not through the library, which maps the file: on a full disk that kills the process, where this fails.
    written = to.with_suffix(".new")
    written.write_bytes(struct.pack("ii", 8 + len(body), 0) + body)
    written.replace(to)


@contextmanager
def _locked(directory: Path, mode: int) -> Iterator[None]:
    """So that no scrape sees what a process counted twice, or not at all, while it is moved."""
    with (directory / "lock").open("ab") as file:
        fcntl.flock(file, mode)
        yield


class _Optimizations(Collector):
    """Of all nodes together, so no part of what processes add up."""

    def __init__(self, figures: OptimizationFigures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        by_status = ("optimizer", "status")
        ended = CounterMetricFamily(
            "dspex_optimizations", "Optimizations that ended, by how, of all nodes.", labels=by_status
        )
        for labels, count in figures.ended.items():
            ended.add_metric(labels, count)
        yield ended
        yield _histogram(
            "dspex_optimization_duration_seconds",
            "From the first start of an optimization to its end, pauses included.",
            by_status,
            figures.durations,
        )
        yield _histogram(
            "dspex_optimization_score_ratio",
            "Scores from 0 to 1 of programs before an optimization and of what it came to.",
            ("optimizer", "of"),
            figures.scores,
        )


def _histogram(
    name: str, text: str, labels: tuple[str, str], spreads: Mapping[tuple[str, str], Spread]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, spread in spreads.items():
        family.add_metric(values, list(spread.cumulative()), spread.sum)
    return family


class _Processes(Collector):
    """Memory and descriptors of the serving processes together."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        told: Counter[str] = Counter()
        pids = self._pids()
        for pid in pids:
            for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                if metric.name == _COUNTED:
                    continue
                told[metric.name] += 1
                known = merged.setdefault(metric.name, metric)
                if known is not metric:
                    value, other = known.samples[0].value, metric.samples[0].value
                    both = min(value, other) if metric.name == _LEAST else value + other
                    known.samples = [known.samples[0]._replace(value=both)]
        # Processes don't show their descriptors to each other, unless root asks; half a sum would mislead.
        yield from (metric for metric in merged.values() if told[metric.name] == len(pids))

    def _pids(self) -> set[int]:
        if self._directory is None:
            return {os.getpid()}
        names = (_OF_PROCESS.fullmatch(name) for name in os.listdir(self._directory))
        return {pid for found in names if found and Path("/proc", str(pid := int(found[1]))).exists()}
