"""`python -m tests.keyservice.stopping`: a key service that stops itself between its look at the lease and a signature.

It does so once for each file that `KEYTURN_TESTS_STOP` names, as a machine that runs out of memory or is moved would.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import keyservice.signer
from keyservice.app import KeyService
from keyservice.settings import KeyserviceSettings
from keyturn.contract.jwk import PrivateKey, sign_each
from serving.starting import start

ARM = "TESTS_STOP"


def main() -> int:
    """Run the key service as it is, but for the moment before its signatures."""
    arm = Path(os.environ.pop(f"KEYTURN_{ARM}"))

    def stop_first(alg: str, messages: Sequence[bytes], key: PrivateKey) -> list[bytes]:
        if arm.exists():
            arm.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)
        return sign_each(alg, messages, key)

    keyservice.signer.sign_each = stop_first  # type: ignore[attr-defined]
    return start(KeyService, KeyserviceSettings, about="A key service that stops itself.")


if __name__ == "__main__":
    sys.exit(main())
