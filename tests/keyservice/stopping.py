"""`python -m tests.keyservice.stopping`: a key service that stops itself between its look at the lease and a signature.

It does so once for each file that `KEYTURN_TESTS_STOP` names, as a machine that runs out of memory or is moved would.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any, cast

from jwt.algorithms import Algorithm

import keyservice.signer
from keyservice.app import KeyService
from keyservice.settings import KeyserviceSettings
from keyturn.contract.jwk import ALGORITHMS
from serving.starting import start

ARM = "TESTS_STOP"


class Stopping:
    """An algorithm whose signature does not come before somebody says SIGCONT."""

    def __init__(self, real: Any, arm: Path) -> None:
        """Stand in for an algorithm."""
        self._real, self._arm = real, arm

    def sign(self, message: bytes, key: Any) -> bytes:
        """Stop, if that was asked for, then sign."""
        if self._arm.exists():
            self._arm.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)
        signature: bytes = self._real.sign(message, key)
        return signature


def main() -> int:
    """Run the key service as it is, but for the algorithms."""
    arm = Path(os.environ.pop(f"KEYTURN_{ARM}"))
    keyservice.signer.ALGORITHMS = {  # type: ignore[attr-defined]
        name: cast("Algorithm", Stopping(real, arm)) for name, real in ALGORITHMS.items()
    }
    return start(KeyService, KeyserviceSettings, about="A key service that stops itself.")


if __name__ == "__main__":
    sys.exit(main())
