"""The files that take longest: they begin first (tests/conftest.py), by seconds as measured once on a busy machine.

Only the order counts. What is not named takes a few seconds; measure anew with `--durations=0` now and then.
"""

from typing import Final

SECONDS: Final = {
    "tests/stack/test_refusals.py": 495,
    "tests/simulation/test_simulation.py": 386,
    "tests/rotation/test_model.py": 240,
    "tests/docs/test_commands.py": 240,
    "tests/rotation/test_planted_bugs.py": 230,
    "tests/stack/test_up.py": 219,
    "tests/faults/test_cut_off.py": 150,
    "tests/faults/test_doorbells.py": 120,
    "tests/rotation/test_pullers.py": 114,
    "tests/rotation/test_pullers_in_a_hurry.py": 83,
    "tests/faults/test_the_server.py": 80,
    "tests/faults/test_lost_data.py": 80,
    "tests/faults/test_trust_changes.py": 55,
    "tests/acl/test_access_list.py": 50,
    "tests/stores/test_failover.py": 47,
    "tests/stores/test_drill.py": 37,
    "tests/rotation/test_fleet.py": 26,
    "tests/stores/test_replicas.py": 22,
    "tests/cli/test_trust_changes.py": 22,
    "tests/simulation/test_shrink.py": 17,
    "tests/simulation/test_planted_bugs.py": 17,
    "tests/stores/test_durability.py": 14,
    "tests/cli/test_arguments.py": 13,
    "tests/sidecar/test_gate.py": 11,
    "tests/stores/test_tls.py": 10,
}
