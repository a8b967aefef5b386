"""`python -m keyservice`."""

import sys

from keyservice.app import KeyService
from keyservice.settings import KeyserviceSettings
from serving.service import main

if __name__ == "__main__":
    sys.exit(main(KeyService, KeyserviceSettings, about=__doc__))
