"""What an order says, read from a request."""

from aiohttp.test_utils import make_mocked_request

from keyservice.orders import read_rotation
from keyturn.contract.keys import Use
from tests.keyservice.building import POLICY


def test_an_idempotency_key_stands_for_one_order_only() -> None:
    """The same key with another body once got a 200 for a rotation that never was."""

    def event_id(body: dict[str, object], key: str = "one") -> str | None:
        request = make_mocked_request("POST", "/keys/rotate", headers={"Idempotency-Key": key})
        return read_rotation(body, request, dict.fromkeys(Use, POLICY), now=0.0)[2].event_id

    alg = POLICY.algorithms[0]
    assert event_id({"alg": alg, "reason": "r"}) == event_id({"reason": "r", "alg": alg}) is not None
    assert (
        len(
            {
                event_id({"alg": alg}),
                event_id({}),
                event_id({"at": 9.0}),
                event_id({}, "two"),
                event_id({"use": "status"}),
            }
        )
        == 5
    )
