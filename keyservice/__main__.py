"""`python -m keyservice`: makes, publishes, rotates and revokes signing keys, and signs for the other services."""

import sys

from keyservice.app import KeyService
from keyservice.settings import KeyserviceSettings
from serving.starting import start

if __name__ == "__main__":
    sys.exit(start(KeyService, KeyserviceSettings, about=__doc__ or ""))
