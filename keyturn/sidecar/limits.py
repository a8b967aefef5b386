"""Every limit that the sidecar's HTTP holds, by name."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection, and all of them together, may ask of the sidecar."""

    target_bytes: int = 8 * 1024
    """Longest request target; a longer one is answered 414."""

    header_fields: int = 100
    """Most header fields of a request; more are answered 431."""

    header_bytes: int = 32 * 1024
    """Most bytes of all header fields together; more are answered 431."""

    body_bytes: int = 64 * 1024
    """Longest body; a longer one is answered 413."""

    connections: int = 4096
    """Most open connections; one more is answered 503 and closed."""

    slice_bytes: int = 16 * 1024
    """How much is parsed before back-pressure is looked at again; so it bounds pipelining too."""

    request_seconds: float = 10.0
    """From a request's first bytes to its last; a slower one is answered 408."""

    reply_seconds: float = 10.0
    """How long an answer that has to wait for something may take; a later one becomes 503."""

    write_seconds: float = 30.0
    """How long a client may leave its answers unread before its connection is dropped."""

    idle_seconds: float = 125.0
    """How long a connection may lie idle.

    It is longer than nginx (60 s), Traefik (90 s) and Caddy (120 s) keep theirs, so that the gateway closes first
    and never meets a connection that dies under a new request.
    """

    linger_seconds: float = 2.0
    """How long to read on, and forget, after a refusal, so that the refusal is not lost to a TCP reset."""

    sweep_seconds: float = 1.0
    """How often the deadlines above are looked at: the precision of all of them."""
