"""The sidecar describes the routes that it has."""

from keyturn.sidecar.description import describe
from keyturn.sidecar.routing import FORM, Route


def test_every_route_is_described_and_gates_by_dialect_and_policy() -> None:
    """A gateway's author looks here first."""

    def answer(*_: object) -> bytes:
        return b""

    routes = {b"/state": Route(answer), b"/introspect": Route(answer, FORM), b"/nginx/default": Route(answer, None)}
    paths = describe(routes, [b"/envoy/strict/"])["paths"]
    assert paths["/state"].keys() == {"get"}
    assert paths["/introspect"].keys() == {"post"}
    assert paths["/nginx/default"]["get"]["summary"].endswith("policy default, for nginx")
    assert paths["/envoy/strict/{path}"]["get"]["responses"].keys() == {"200", "401", "403", "503"}
