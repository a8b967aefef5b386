"""How a command ends: its exit status, and one clear line where it has no answer."""

from enum import IntEnum

from keyturn.contract.errors import KeyturnError


class ExitStatus(IntEnum):
    """What the shell hears."""

    YES = 0
    NO = 1
    USAGE = 2
    UNTOLD = 3  # Neither yes nor no: something could not be reached, or would not say.


class WrongUsage(KeyturnError):
    """The command cannot be meant so; says what to write instead, and never repeats a token."""

    code = "usage"


class CannotTell(KeyturnError):
    """The question was good, but no answer is to be had."""

    code = "cannot_tell"


class OutcomeUnknown(CannotTell):
    """The question was sent, and no answer says what came of it; an order may have been carried out."""

    code = "outcome_unknown"
