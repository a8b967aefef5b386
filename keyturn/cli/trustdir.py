"""The directory that `keyturn init` made, as those who hold the root change it: signed anew, replaced in one step."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyturn.cli.answers import WrongUsage
from keyturn.cli.files import alone_in, replace_file
from keyturn.contract.encoding import decode_object
from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import ConfigurationError, MalformedInput, TrustError
from keyturn.contract.jwk import load_ed25519_private, thumbprint
from keyturn.contract.trust import Trust, TrustDocument, open_trust, sign_trust
from keyturn.process.pinned import read_root
from keyturn.process.values import Secret, Unfit


class TrustDirectory:
    """`trust.jws`, the root that it is held against, and the keys beside them."""

    def __init__(self, path: Path, *, root_key: Path | None = None) -> None:
        """Know the directory; the root's private key lies in it unless it is named."""
        self.path = path.absolute()
        self.document = self.path / "trust.jws"
        self._pinned, self._root_key = self.path / "root.jwk", root_key or self.path / "root" / "private.jwk"

    def read(self) -> Trust:
        """Return the document as whoever pins this directory's root reads it, expired or not; raises WrongUsage."""
        try:
            root = read_root(self._pinned)
            return open_trust(self.document.read_bytes().strip(), root=root, allow_dev=True)
        except OSError as error:
            raise WrongUsage(
                f"{self.document} cannot be read: {error.strerror}; name the directory of keyturn init by --dir"
            ) from error
        except ConfigurationError as error:
            raise WrongUsage(f"{error}; name the directory of keyturn init by --dir") from error
        except TrustError as error:
            raise WrongUsage(
                f"{self.document} is not to be believed by {self._pinned}: {error}; put back the newest trust-N.jws "
                "that is"
            ) from error

    @property
    def root_kid(self) -> str:
        """Return the thumbprint of the root that this directory's processes pin; raises ConfigurationError."""
        return thumbprint(read_root(self._pinned))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other commands from changing the directory meanwhile."""
        with alone_in(self.path):
            yield

    def publish(self, held: Trust, document: TrustDocument) -> None:
        """Sign the next version and put it in the place of the held one, which stays as `trust-VERSION.jws`.

        Raises WrongUsage if the root's private key is not here, or is another's; CannotTell if nothing can be written.
        """
        compact = sign_trust(self._root(), document)
        replace_file(self.path / f"trust-{held.version}.jws", held.compact, private=False)
        replace_file(self.document, compact, private=False)

    def _root(self) -> StatementKey:
        try:
            key = StatementKey(load_ed25519_private(decode_object(Secret.read(self._root_key).reveal())))
        except Unfit as error:
            raise WrongUsage(f"{error}: {error.mend}; bring the root here, or name its file by --root-key") from error
        except MalformedInput as error:
            raise WrongUsage(f"{self._root_key} holds no root: {error}") from error
        if key.public != read_root(self._pinned):
            raise WrongUsage(f"{self._root_key} is the private key of another root than {self._pinned}")
        return key
