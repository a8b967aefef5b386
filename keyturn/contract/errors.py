"""One tree of errors, each with a stable code; only `serving/problems.py` turns them into HTTP."""

from typing import ClassVar


class KeyturnError(Exception):
    """The root of everything that Keyturn raises on purpose."""

    code: ClassVar[str] = "keyturn_error"


class ConfigurationError(KeyturnError):
    """A setting that cannot work; names the setting and how to mend it."""

    code = "configuration"

    def __init__(self, message: str, *, setting: str, mend: str) -> None:
        super().__init__(f"{message} ({setting}: {mend})")
        self.setting, self.mend = setting, mend


class TrustError(KeyturnError):
    """Something that asked to be believed is not vouched for."""

    code = "untrusted"


class ForgedSignature(TrustError):
    """A signature that no trusted key of the right role made, or bytes that are no signed statement at all."""

    code = "forged_signature"


class TrustExpired(TrustError):
    """The trust document is past its expiry."""

    code = "trust_expired"


class UnknownKind(TrustError):
    """A signed statement of a kind that this version cannot read; skipping it could hide a revocation."""

    code = "unknown_kind"


class BrokenChain(TrustError):
    """A signed event that does not extend the position that we hold: a gap, a fork or a rollback."""

    code = "broken_chain"


class ReplicaExpired(TrustError):
    """The publisher has been silent for so long that a revocation may have passed us by."""

    code = "replica_expired"

    def __init__(self, message: str = "the feed has been silent for too long", *, silence_seconds: float) -> None:
        super().__init__(f"{message}: {silence_seconds:.1f} s")
        self.silence_seconds = silence_seconds


class IssuerKeysUnavailable(ReplicaExpired):
    """The keys of another issuer could not be read for so long that nothing can be said of its tokens."""

    code = "issuer_keys_unavailable"

    def __init__(self, *, issuer: str, silence_seconds: float) -> None:
        super().__init__(f"the keys of issuer {issuer} are too old", silence_seconds=silence_seconds)
        self.issuer = issuer


class FeedError(KeyturnError):
    """The feed could not do what was asked."""

    code = "feed"


class FeedUnavailable(FeedError):
    """The store cannot be reached, or its answer is unknown; trying again later is right."""

    code = "feed_unavailable"


class Unconfirmed(FeedUnavailable):
    """The event stands, but is not as durable as settings ask for; the outcome is known, the promise is not kept."""

    code = "unconfirmed"

    def __init__(self, *, lane: str, place: tuple[int, int], wanted: str, found: str) -> None:
        super().__init__(
            f"the event stands at {place[0]}:{place[1]} of lane {lane} and is pushed; it is {found} and not {wanted}:"
            " see to the store's replicas and disk, then ask again to have it confirmed"
        )
        self.lane, self.place, self.wanted, self.found = lane, place, wanted, found


class PositionTaken(FeedError):
    """Another publisher appended first: read again and decide again."""

    code = "position_taken"


class StreamSpoiled(FeedUnavailable):
    """The stream of a lane's epoch holds what its publisher did not write: nothing can be added to it any more."""

    code = "stream_spoiled"


class ArchiveFailed(FeedError):
    """Events could not be kept in the archive: they must stay in the store."""

    code = "archive_failed"


class StoreUnavailable(KeyturnError):
    """A store of records cannot be reached; nothing can be said about a token."""

    code = "store_unavailable"


class SignerUnavailable(KeyturnError):
    """No signature can be had now: the signing service is away, or it cannot confirm its state."""

    code = "signer_unavailable"


class SignerMissing(KeyturnError):
    """A service was asked for what has to be signed, and its settings name no signer."""

    code = "signer_missing"

    def __init__(self, *, typ: str, service: str) -> None:
        super().__init__(f"no {typ} is made here: {service}.signer and {service}.identity_file are not set")
        self.typ, self.service = typ, service


class WrapperUnavailable(KeyturnError):
    """The service that holds the key-encryption key cannot be reached, or refuses; nothing is known of the key."""

    code = "key_wrapper_unavailable"


class AssertionRefused(KeyturnError):
    """A service did not prove who it is for this very request."""

    code = "assertion_refused"


class SigningRefused(KeyturnError):
    """A service asked for a signature that the root does not allow it."""

    code = "signing_refused"


class InvalidToken(KeyturnError):
    """A token that must not be accepted; `reason` is a stable word, and never part of the token."""

    code = "invalid_token"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class InvalidSelector(KeyturnError):
    """A revocation selector that names nothing, too much or something unknown."""

    code = "invalid_selector"


class MalformedInput(KeyturnError):
    """Input that is not what its format asks for."""

    code = "malformed"
