"""The metrics of one process, in a registry of its own, for Prometheus to read."""

import platform
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from typing import Any, Final, TypeAlias, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
# From half a millisecond, what a verification behind a socket takes, to a slow store.
SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

Reading: TypeAlias = float | Mapping[Any, float]
"""A number; or one for each value (str) of the label, or each combination (tuple of str) of several labels."""

Made = TypeVar("Made", Counter, Gauge)
Family: TypeAlias = type[CounterMetricFamily] | type[GaugeMetricFamily]


class Metrics:
    """What one process counts; make one at its start and hand it on.

    Services that share a process share it: asking for a name again returns what is there. Names start with
    `keyturn_`, and units are seconds and bytes. Labels take few values: never a token, a subject or anything else
    that a stranger chooses.
    """

    def __init__(self, *, process: str) -> None:
        """Begin with `keyturn_build_info` and, on Linux, the memory, files and CPU of the process."""
        self._registry = CollectorRegistry(auto_describe=False)
        self._readings = _Readings()
        self._known: dict[str, tuple[Counter | Gauge, tuple[str, ...]]] = {}
        self._timings: dict[str, Timings] = {}
        self._registry.register(self._readings)
        ProcessCollector(registry=self._registry)
        labels = {"process": process, "version": build_version(), "python": platform.python_version()}
        self.gauge("keyturn_build_info", "What runs here.", labels=tuple(labels)).labels(**labels).set(1)

    def counter(self, name: str, about: str, *, labels: Sequence[str] = ()) -> Counter:
        """Return the counter of that name; `_total` is added to it when it is shown."""
        return self._made(name, labels, Counter, lambda: Counter(name, about, labels, registry=self._registry))

    def gauge(self, name: str, about: str, *, labels: Sequence[str] = ()) -> Gauge:
        """Return the value of that name, which goes up and down."""
        return self._made(name, labels, Gauge, lambda: Gauge(name, about, labels, registry=self._registry))

    def timings(self, name: str, about: str, *, labels: Sequence[str] = ()) -> "Timings":
        """Return the histogram of that name, of seconds."""
        known = self._timings.get(name)
        if known is None:
            known = self._timings[name] = Timings(name, about, tuple(labels))
            self._registry.register(known)
        if known.labels != tuple(labels):
            raise ValueError(f"the metric {name} exists already, with other labels")
        return known

    def read_counter(self, name: str, about: str, read: Callable[[], Reading], *, labels: Sequence[str] = ()) -> None:
        """Export what a hot path counts in plain ints: `read` is called for each scrape, and must be quick."""
        self._readings.add(CounterMetricFamily, name, about, tuple(labels), read)

    def read_gauge(self, name: str, about: str, read: Callable[[], Reading], *, labels: Sequence[str] = ()) -> None:
        """Export a value that somebody holds already: `read` is called for each scrape, and must be quick."""
        self._readings.add(GaugeMetricFamily, name, about, tuple(labels), read)

    def render(self) -> bytes:
        """Return all of it in the text format; its content type is CONTENT_TYPE."""
        return generate_latest(self._registry)

    def _made(self, name: str, labels: Sequence[str], kind: type[Made], make: Callable[[], Made]) -> Made:
        """Make it once: parts that share a process share what they have in common."""
        known, its_labels = self._known.get(name, (None, ()))
        if known is None:
            made = make()
            self._known[name] = made, tuple(labels)
            return made
        if not isinstance(known, kind) or its_labels != tuple(labels):
            raise ValueError(f"the metric {name} exists already, of another kind or with other labels")
        return known


def build_version() -> str:
    """Return the version of the installed package, or `checkout`."""
    try:
        return version("keyturn")
    except PackageNotFoundError:
        return "checkout"


class Timing:
    """How long one kind of thing took, in plain counts: each costs a third of what the client library takes for it."""

    __slots__ = ("counts", "total_seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS_BUCKETS) + 1)
        self.total_seconds = 0.0

    def note(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(SECONDS_BUCKETS, seconds)] += 1
        self.total_seconds += seconds


class Timings:
    """A histogram: a `Timing` for each combination of its labels."""

    def __init__(self, name: str, about: str, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self._name, self._about = name, about
        self._timings: dict[tuple[str, ...], Timing] = {}

    def of(self, *values: str) -> Timing:
        """Return what is counted for these values of the labels."""
        return self._timings.setdefault(values, Timing())

    def collect(self) -> Iterable[Metric]:
        """Show it to the registry."""
        family = HistogramMetricFamily(self._name, self._about, labels=self.labels)
        for values, timing in self._timings.items():
            shown = zip((*map(str, SECONDS_BUCKETS), "+Inf"), accumulate(timing.counts), strict=True)
            family.add_metric(values, list(shown), timing.total_seconds)
        return [family]


class _Source:
    """One metric whose values are read when they are asked for."""

    def __init__(self, family: Family, name: str, about: str, labels: tuple[str, ...]) -> None:
        self.family, self.labels = family, labels
        self.reads: list[Callable[[], Reading]] = []
        self._name, self._about = name, about

    def collect(self) -> Metric:
        metric = self.family(self._name, self._about, labels=self.labels)
        for read in self.reads:
            reading = read()
            if not isinstance(reading, Mapping):
                metric.add_metric((), reading)
                continue
            for values, number in reading.items():
                metric.add_metric((values,) if isinstance(values, str) else values, number)
        return metric


class _Readings:
    """Collects the sources for the registry."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}

    def add(self, family: Family, name: str, about: str, labels: tuple[str, ...], read: Callable[[], Reading]) -> None:
        source = self._sources.setdefault(name, _Source(family, name, about, labels))
        if (source.family, source.labels) != (family, labels) or (source.reads and not labels):
            raise ValueError(f"the metric {name} exists already")
        source.reads.append(read)

    def collect(self) -> Iterable[Metric]:
        return [source.collect() for source in self._sources.values()]
