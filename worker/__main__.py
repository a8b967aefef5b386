"""`python -m worker`: runs what is due, such as key rotation, on its schedule."""

import sys

from serving.service import main
from worker.app import WorkerService

if __name__ == "__main__":
    sys.exit(main(WorkerService, None, about=__doc__ or ""))
