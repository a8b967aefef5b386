"""`?wait=all&timeout=SECONDS`: what is taken, to its limits, and what is refused."""

import pytest
from aiohttp.test_utils import make_mocked_request

from keyturn.contract.errors import MalformedInput
from serving.receipts import DEFAULT_WAIT_SECONDS, LONGEST_WAIT_SECONDS, Quorum, read_wait


@pytest.mark.parametrize(
    ("query", "quorum", "seconds"),
    [
        ("", Quorum.NOBODY, DEFAULT_WAIT_SECONDS),
        ("wait=all", Quorum.ALL, DEFAULT_WAIT_SECONDS),
        ("wait=quorum&timeout=0", Quorum.MOST, 0.0),
        (f"wait=all&timeout={LONGEST_WAIT_SECONDS:g}", Quorum.ALL, LONGEST_WAIT_SECONDS),
        ("timeout=2.5", Quorum.NOBODY, 2.5),
    ],
)
def test_a_caller_says_for_whom_it_waits_and_how_long(query: str, quorum: Quorum, seconds: float) -> None:
    """The description promises both limits, themselves included."""
    assert read_wait(make_mocked_request("POST", f"/revocations?{query}")) == (quorum, seconds)


@pytest.mark.parametrize(
    "query",
    ["wait=", "wait=ALL", "wait=all&wait=all", "wait=none", "timeout=", "timeout=nan", "timeout=inf", "timeout=-0.1",
     f"timeout={LONGEST_WAIT_SECONDS + 0.01}", "timeout=x", "timeout=1&timeout=1"],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused(query: str) -> None:
    """A caller that believes it waits for all must not be answered before; nor hold a request for ever."""
    with pytest.raises(MalformedInput):
        read_wait(make_mocked_request("POST", f"/revocations?{query}"))
