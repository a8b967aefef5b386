"""`[worker]`: where its queue lives, and as whom it watches over rotation."""

from dataclasses import dataclass
from typing import ClassVar

from keyturn.process.settings import Section


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSettings(Section):
    """`[worker]`."""

    SECTION: ClassVar[str] = "worker"
    queue: str = "arq:keyturn"
