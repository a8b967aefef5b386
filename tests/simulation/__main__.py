"""Long runs and a closer look: `python -m tests.simulation --seeds N`, `--seed S`, or `--plants`."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from keyturn.clock import SystemClock
from tests.simulation.plan import plan_of
from tests.simulation.plants import MOST_SEEDS, PLANTS, until_found
from tests.simulation.shrink import kind_of, shrunk
from tests.simulation.world import run

_TELL_EVERY = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for; return 0 if nothing broke that should hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many seeds to run (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--seed", type=int, help="run this one and tell its whole history")
    parser.add_argument("--plants", action="store_true", help="plant each bug, and print how many seeds find it")
    parser.add_argument("--keep-going", action="store_true", help="count failures rather than stop at the first")
    args = parser.parse_args(arguments)
    if args.plants:
        return find_plants()
    if args.seed is not None:
        return tell(args.seed)
    return go_through(range(args.first, args.first + args.seeds), keep_going=args.keep_going)


def go_through(seeds: range, *, keep_going: bool) -> int:
    """Run seeds; make the first failure smaller and tell it, or only count."""
    clock, reached, failures = SystemClock(), Counter[str](), Counter[str]()
    began = clock.boottime()
    for count, seed in enumerate(seeds, 1):
        went = run(plan_of(seed))
        reached += went.reached
        if went.failure is not None:
            failures[kind_of(went.failure)] += 1
            print(f"seed {seed}: {went.failure}")
            if not keep_going:
                return explain(seed, went.failure)
        if count % _TELL_EVERY == 0 or count == len(seeds):
            seconds = clock.boottime() - began
            print(
                f"{count} seeds, {sum(failures.values())} failures, {1000 * seconds / count:.0f} ms a seed", flush=True
            )
    for state, times in sorted(reached.items(), key=lambda one: -one[1]):
        print(f"{times:>12}  {state}")
    return 1 if failures else 0


def explain(seed: int, failure: BaseException) -> int:
    """Print the smallest plan that fails like this, and its history."""
    plan, went = shrunk(plan_of(seed), failure)
    print(f"\nThe plan, made smaller ({len(plan.happenings)} happenings; {', '.join(plan.processes)}):")
    for happening in plan.happenings:
        print(happening)
    print(f"\nIts history:\n{went.told}\n\n{went.failure}")
    return 1


def tell(seed: int) -> int:
    """Print one seed's history."""
    went = run(plan_of(seed))
    print(f"{went.told}\n\n{went.failure or 'no invariant broke'}\n{went.digest}")
    return 0 if went.failure is None else explain(seed, went.failure)


def find_plants() -> int:
    """Print the table of planted bugs."""
    missed = 0
    print("| planted bug | what it does | seeds needed | found by |\n|---|---|---|---|")
    for plant, expected in PLANTS.items():
        found = until_found(plant)
        what = (plant.__doc__ or "").strip().splitlines()[0].rstrip(".")
        right = found is not None and found.invariant in expected
        missed += not right
        needed = f"not within {MOST_SEEDS}" if found is None else str(found.seeds)
        by = "" if found is None else found.invariant
        print(f"| `{plant.__name__}` | {what} | {needed} | {by}{'' if right else ' (unexpected)'} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
