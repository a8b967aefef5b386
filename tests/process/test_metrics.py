"""Metrics live in a registry of their own, and hot paths count in plain ints."""

import pytest

from keyturn.process.metrics import Metrics


def lines(metrics: Metrics) -> list[str]:
    """Return what Prometheus reads, without the comments."""
    return [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]


def test_what_runs_here_is_told() -> None:
    """A dashboard must see which version a process runs, and how much memory it takes."""
    told = lines(Metrics(process="sidecar"))
    assert any(line.startswith("keyturn_build_info{") and 'process="sidecar"' in line for line in told)
    assert any(line.startswith("process_resident_memory_bytes ") for line in told)


def test_two_processes_in_one_do_not_meet() -> None:
    """The stack, and the tests, make several: a global registry would refuse the second."""
    first, second = Metrics(process="one"), Metrics(process="two")
    first.counter("keyturn_things", "Things.").inc()
    second.counter("keyturn_things", "Things.")
    assert "keyturn_things_total 1.0" in lines(first)
    assert "keyturn_things_total 0.0" in lines(second)


def test_each_kind_is_rendered() -> None:
    """Counter, gauge, histogram."""
    metrics = Metrics(process="test")
    metrics.counter("keyturn_answers", "Answers.", labels=("status",)).labels(status="200").inc()
    metrics.gauge("keyturn_keys", "Keys.").set(3)
    metrics.timings("keyturn_answer_seconds", "How long.").of().note(0.002)
    told = lines(metrics)
    assert 'keyturn_answers_total{status="200"} 1.0' in told
    assert "keyturn_keys 3.0" in told
    assert 'keyturn_answer_seconds_bucket{le="0.0025"} 1.0' in told
    assert 'keyturn_answer_seconds_bucket{le="0.001"} 0.0' in told


def test_services_that_share_a_process_share_a_metric() -> None:
    """Each asks for it by name; one of another shape under that name is a mistake."""
    metrics = Metrics(process="stack")
    for service in ("keyservice", "revocation"):
        metrics.counter("keyturn_requests", "Requests.", labels=("service",)).labels(service=service).inc()
    assert 'keyturn_requests_total{service="revocation"} 1.0' in lines(metrics)
    with pytest.raises(ValueError, match="keyturn_requests"):
        metrics.gauge("keyturn_requests", "Requests.", labels=("service",))
    with pytest.raises(ValueError, match="keyturn_requests"):
        metrics.counter("keyturn_requests", "Requests.", labels=("route",))


def test_plain_counts_are_read_when_they_are_asked_for() -> None:
    """The request path adds to an int; nothing else happens there."""
    hits = {"allow": 0, "deny": 0}
    size = 0
    metrics = Metrics(process="sidecar")
    metrics.read_counter("keyturn_verdicts", "Verdicts.", lambda: hits, labels=("verdict",))
    metrics.read_gauge("keyturn_cache_entries", "Entries.", lambda: size)
    hits["allow"] += 5
    size = 7
    told = lines(metrics)
    assert 'keyturn_verdicts_total{verdict="allow"} 5.0' in told
    assert "keyturn_cache_entries 7.0" in told


def test_readings_of_one_name_are_told_together() -> None:
    """Two services count under the same name, each with its own labels; without labels they could not be told apart."""
    metrics = Metrics(process="stack")
    metrics.read_counter("keyturn_misses", "Misses.", lambda: {("a", "x"): 1}, labels=("service", "kind"))
    metrics.read_counter("keyturn_misses", "Misses.", lambda: {("b", "y"): 2}, labels=("service", "kind"))
    told = lines(metrics)
    assert 'keyturn_misses_total{kind="x",service="a"} 1.0' in told
    assert 'keyturn_misses_total{kind="y",service="b"} 2.0' in told
    metrics.read_gauge("keyturn_age_seconds", "Age.", lambda: 1.5)
    with pytest.raises(ValueError, match="keyturn_age_seconds"):
        metrics.read_gauge("keyturn_age_seconds", "Age.", lambda: 2)
    with pytest.raises(ValueError, match="keyturn_misses"):
        metrics.read_gauge("keyturn_misses", "Misses.", lambda: {"c": 1}, labels=("service",))
