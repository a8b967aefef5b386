"""What the connection asks of its HTTP parser, and the parser that hears nothing."""

from typing import Final, Protocol


class Parser(Protocol):
    """What is used of `httptools.HttpRequestParser`."""

    def feed_data(self, data: bytes) -> None:
        """Parse, and call the connection back."""

    def get_method(self) -> bytes:
        """Return the method of the request."""

    def get_http_version(self) -> str:
        """Return the version, such as `1.1`."""

    def should_keep_alive(self) -> bool:
        """Say whether the connection may live on after this request."""

    def should_upgrade(self) -> bool:
        """Say whether what follows the request is another protocol."""


class _Deaf:
    """Stands in for the parser once nothing more that the client says counts."""

    def feed_data(self, data: bytes) -> None:
        """Forget it."""

    def get_method(self) -> bytes:
        """Name no method."""
        return b""

    def get_http_version(self) -> str:
        """Name no version."""
        return ""

    def should_keep_alive(self) -> bool:
        """Say no."""
        return False

    def should_upgrade(self) -> bool:
        """Say no."""
        return False


DEAF: Final[Parser] = _Deaf()
