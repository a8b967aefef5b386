"""Brings the root's newest document from the file into the store, and lets no older one stand there."""

from pathlib import Path

from keyturn.contract.errors import ConfigurationError, FeedUnavailable, ForgedSignature, TrustError, TrustExpired
from keyturn.contract.roots import LARGEST_BUNDLE_BYTES, earlier_roots, split_bundle
from keyturn.contract.trust import Trust, open_trust
from keyturn.process.belonging import require_ours
from serving.parts import Parts

LOOK_SECONDS = 2.0
TRUST_PUBLISHED = "trust_published"
TRUST_NOT_PUBLISHED = "trust_not_published"
DOCUMENT_REFUSED = "trust_document_refused"
STORE_REFUSED = "trust_in_store_refused"
_SETTING = "keyservice.trust_document"


class TrustKeeper:
    """Looks at file and store every two seconds; the newest document of the two is adopted here and kept in the store.

    Never an older one in the place of a newer, however many keyservices with different files there are: the store
    replaces only the document that was looked at.
    """

    def __init__(self, path: Path, parts: Parts) -> None:
        """Read the file once; raises ConfigurationError if no process could live by what it holds."""
        self._path, self._pinned, self._feed, self._replica = path, parts.pinned, parts.feed, parts.replica
        self._clock, self._log = parts.clock, parts.log
        self._seen = self._read()
        self._said: dict[str, str] = {}  # The last reason for each event.
        try:
            self._filed = self._open(self._seen)
        except TrustError as error:
            raise ConfigurationError(
                str(error), setting=_SETTING, mend="name a document that the pinned root signed"
            ) from error

    async def begin(self) -> None:
        """Put our document in the store unless it has a newer one; raises ConfigurationError for a stranger's store."""
        held = await self._feed.trust()
        if held is not None and not self._is_an_earlier_one_of_ours(held):
            require_ours(held, self._pinned)
        self._adopt(self._filed)
        await self._keep()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except FeedUnavailable as error:
                self._note(TRUST_NOT_PUBLISHED, reason=str(error))

    async def look(self) -> None:
        """Take what the file has become, and see to the store; raises FeedUnavailable."""
        self._look_at_file()
        await self._keep()

    def _look_at_file(self) -> None:
        """Adopt what the file has become; one that cannot be adopted is said to be so, once, and left alone."""
        try:
            found = self._read()
            if found == self._seen:
                return
            self._seen = found
            trust = self._open(found)
            if trust.version < self._replica.trust.version:
                held = self._replica.trust.version
                reason = f"version {trust.version}, and version {held} is in force"
                self._note(DOCUMENT_REFUSED, file=str(self._path), reason=reason)
                return
            self._adopt(trust)
            self._said.clear()
        except (ConfigurationError, TrustError) as error:
            self._note(DOCUMENT_REFUSED, file=str(self._path), reason=str(error))

    async def _keep(self) -> None:
        """Leave file's and store's newest document in the replica, and the replica's in the store."""
        held = await self._feed.trust()
        newest = self._replica.trust
        if held == newest.compact:
            self._said.pop(STORE_REFUSED, None)
            return
        if held is not None and self._may_stand(held):
            return
        if await self._feed.keep_trust(newest.compact, over=held or b""):
            self._log.info(TRUST_PUBLISHED, version=newest.version)

    def _may_stand(self, held: bytes) -> bool:
        """Adopt the store's document if it is newer; say whether it is to stay there."""
        now, newest = self._clock.now(), self._replica.trust
        try:
            trust = open_trust(held, root=newest.root, allow_dev=self._pinned.allow_dev)
            if trust.version > newest.version:
                trust.check_time(now)
            self._adopt(trust)
        except TrustExpired as error:
            # The root has said it, and what it took back must not be given again by an older one.
            self._note(STORE_REFUSED, code=error.code, reason="a newer version, which has expired")
            return True
        except TrustError as error:
            self._note(STORE_REFUSED, code=error.code, reason=str(error))
            return False
        return trust.version >= newest.version

    def _adopt(self, trust: Trust) -> None:
        if self._replica.adopt_trust(trust):
            self._log.info("trust_adopted", version=trust.version)

    def _is_an_earlier_one_of_ours(self, held: bytes) -> bool:
        """Say whether a root that handed over to ours signed it: a store from before the root was rotated."""
        for root in earlier_roots(split_bundle(self._filed.compact).steps, self._filed.root):
            try:
                return open_trust(held, root=root, allow_dev=True).document.issuer == self._pinned.issuer
            except ForgedSignature:
                continue
            except TrustError:
                return False
        return False

    def _open(self, compact: bytes) -> Trust:
        held = self._replica.trust
        root = held.root if held.version else self._pinned.root
        trust = open_trust(compact, root=root, allow_dev=self._pinned.allow_dev)
        trust.check_time(self._clock.now())
        return trust

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                return file.read(LARGEST_BUNDLE_BYTES + 2).strip()
        except OSError as error:
            raise ConfigurationError(
                f"{self._path} cannot be read: {error.strerror}", setting=_SETTING,
                mend="name a file that this process can read",
            ) from error  # fmt: skip

    def _note(self, event: str, *, reason: str, **facts: str) -> None:
        """Say once what cannot be done, and why."""
        if reason != self._said.get(event):
            self._said[event] = reason
            self._log.warning(event, reason=reason, **facts)
