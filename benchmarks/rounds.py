"""Rounds of A B A B …, and what is concluded from them."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.load import Sample, Target, sample

ROUNDS = 5
SECONDS = 2
WARM_UP_SECONDS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the report, as `benchmarks/results.json` has it."""

    id: str
    what: str
    goal: str
    figure: float
    holds: bool | None
    """None where there is no goal, and the figure is there to explain another one."""

    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rounds:
    """The samples of each contender, in the order of the rounds."""

    samples: dict[str, list[Sample]]

    def rate(self, name: str) -> float:
        """Return the median rate."""
        return median(sample.rate for sample in self.samples[name])

    def ratio(self, name: str, reference: str) -> float:
        """Return the median of the ratios of each round, so that a machine that slows down slows both."""
        pairs = zip(self.samples[name], self.samples[reference], strict=True)
        return median(mine.rate / theirs.rate for mine, theirs in pairs)

    def p99_ratio(self, name: str, reference: str) -> float:
        """Return the median of the ratios of each round's p99."""
        pairs = zip(self.samples[name], self.samples[reference], strict=True)
        return median(mine.p99_ms / theirs.p99_ms for mine, theirs in pairs)

    def facts(self) -> dict[str, float]:
        """Return of each what is median: its rate, its share of its CPU, its p99, and what the host took meanwhile."""
        facts: dict[str, float] = {}
        for name, samples in self.samples.items():
            facts[f"{name} requests/s"] = round(self.rate(name))
            facts[f"{name} CPU share"] = round(median(sample.cpu_share for sample in samples), 2)
            facts[f"{name} p99, ms"] = round(median(sample.p99_ms for sample in samples), 1)
            facts[f"{name}, CPU time that the host took"] = round(median(sample.stolen_share for sample in samples), 3)
            facts[f"{name} requests/CPU s"] = round(median(sample.rate / sample.cpu_share for sample in samples))
        return facts


def in_turn(
    targets: Sequence[Target],
    tokens: Path,
    *,
    rounds: int = ROUNDS,
    script: str = "tokens.lua",
    warm_up_seconds: int = WARM_UP_SECONDS,
) -> Rounds:
    """Measure each target once a round, after a warm-up of each."""
    for target in targets:
        sample(target, tokens, seconds=warm_up_seconds, script=script)
    samples: dict[str, list[Sample]] = {target.name: [] for target in targets}
    for number in range(1, rounds + 1):
        for target in targets:
            samples[target.name].append(sample(target, tokens, seconds=SECONDS, script=script))
        rates = ", ".join(f"{name} {taken[-1].rate:,.0f}/s" for name, taken in samples.items())
        print(f"  round {number} of {rounds}: {rates}", file=sys.stderr, flush=True)
    return Rounds(samples)


def at_least(rounds: Rounds, name: str, reference: str, *, row: str, what: str, goal: float) -> Row:
    """Conclude a goal of the kind: at least so much of the reference."""
    figure = rounds.ratio(name, reference)
    return Row(
        id=row, what=what, goal=f">= {goal:.2f}", figure=round(figure, 3), holds=figure >= goal, facts=rounds.facts()
    )
