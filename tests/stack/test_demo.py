"""`make demo`, whole: the slow one (about 25 s)."""

import asyncio
import json

from tests.stack.upping import stack

LONGEST_SECONDS = 110


async def test_the_demo_shows_the_main_job_without_one_wrong_answer() -> None:
    """Rotations, an emergency, revocations and a killed server under steady traffic through two sidecars."""
    process = await stack("demo", "--json")
    told, said = await asyncio.wait_for(process.communicate(), LONGEST_SECONDS)
    assert process.returncode == 0, (told + said).decode()[-3000:]
    summary = json.loads(told.splitlines()[-1])
    assert summary.keys() == {
        "tokens_issued", "verified", "false_rejects", "false_accepts", "rotations", "emergency_rotations",
        "revocations", "revocation_ms", "rotation_ms", "sidecars",
    }  # fmt: skip
    assert (summary["false_rejects"], summary["false_accepts"]) == (0, 0)
    assert summary["rotations"] >= 5
    assert summary["emergency_rotations"] == 1
    assert summary["revocations"] >= 50
    assert summary["sidecars"] == 2
    assert summary["tokens_issued"] > 50
    assert summary["verified"] > 1000
    for figures in (summary["revocation_ms"], summary["rotation_ms"]):
        assert 0 < figures["p50"] <= figures["p99"]
