"""`python -m revocation`: revokes tokens and what selectors name, durably, and says who has adopted it."""

import sys

from revocation.app import RevocationService
from revocation.settings import RevocationSettings
from serving.starting import start

if __name__ == "__main__":
    sys.exit(start(RevocationService, RevocationSettings, about=__doc__ or ""))
