"""The directory that `keyturn init` made, as those who hold the root change it: signed anew, replaced in one step."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyturn.cli.answers import WrongUsage
from keyturn.cli.files import alone_in, replace_file
from keyturn.cli.provisioning import NewKey
from keyturn.contract.encoding import decode_object, encode_json
from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import ConfigurationError, MalformedInput, TrustError
from keyturn.contract.jwk import load_ed25519_private, thumbprint
from keyturn.contract.roots import LARGEST_BUNDLE_BYTES, MOST_STEPS, Bundle, sign_step, split_bundle
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

    @contextmanager
    def changing(self, now: float) -> Iterator[Trust]:
        """Give the held document to who is about to sign the next, and keep others from changing the directory.

        Before anything is written it is sure that the root's private key is here and that the document is in force.
        Raises WrongUsage.
        """
        with self.signing() as held:
            if now >= held.document.expires_at:
                raise WrongUsage(f"version {held.version} has expired: keyturn trust renew comes first")
            yield held

    @contextmanager
    def signing(self) -> Iterator[Trust]:
        """As `changing`, whether the document is in force or not."""
        with alone_in(self.path):
            held = self.read()
            self._root(held)
            yield held

    def publish(self, held: Trust, document: TrustDocument) -> None:
        """Sign the next version and put it in the place of the held one, which stays as `trust-VERSION.jws`.

        Raises WrongUsage if the root's private key is not here, or is another's; CannotTell if nothing can be written.
        """
        self._put(held, Bundle(split_bundle(held.compact).steps, sign_trust(self._root(held), document)))

    def hand_over(self, held: Trust, document: TrustDocument, *, now: float) -> NewKey:
        """Make a new root, which signs the next version behind a step that both roots sign; return it.

        The old private root stays as `private-VERSION.jwk`. Raises as `publish` does.
        """
        old, private = self._root(held), self._root_key
        new = NewKey(private.with_name(f"{private.stem}.next.jwk"))
        step = sign_step(old=old, new=new.key, at=now)
        steps = [*split_bundle(held.compact).steps, step][-MOST_STEPS:]
        replace_file(new.path, new.content)
        self._put(held, Bundle(steps, sign_trust(new.key, document)))
        replace_file(self.path / f"root-{held.version}.jwk", self._pinned.read_bytes(), private=False)
        replace_file(self._pinned, encode_json(new.key.public) + b"\n", private=False)
        private.rename(self.old_root(held.version))
        new.path.rename(private)
        return new

    def old_root(self, version: int) -> Path:
        """Return where the private root that signed a version is kept once it has handed over."""
        return self._root_key.with_name(f"{self._root_key.stem}-{version}.jwk")

    def secret_of(self, path: Path) -> bytes:
        """Return the content of a private key's file; raises WrongUsage."""
        try:
            return Secret.read(path).reveal() + b"\n"
        except Unfit as error:
            raise WrongUsage(f"{error}: {error.mend}") from error

    def public_of(self, path: Path) -> dict[str, str]:
        """Return the public half of the private key in a file; raises WrongUsage."""
        try:
            return StatementKey(load_ed25519_private(decode_object(self.secret_of(path)))).public
        except MalformedInput as error:
            raise WrongUsage(f"{path} holds no private key: {error}") from error

    def users_but(self, name: str, *, absent: bool = False) -> bytes:
        """Return the store's access list without the line of a user; raises WrongUsage if it cannot be read.

        With `absent` also if there is such a user.
        """
        path = self.path / "redis" / "users.acl"
        lines = self.secret_of(path).splitlines(keepends=True)
        others = [line for line in lines if line.split()[1:2] != [name.encode("ascii")]]
        if absent and len(others) < len(lines):
            raise WrongUsage(f"{path} has a user {name} already: choose another name")
        return b"".join(others)

    def _put(self, held: Trust, bundle: Bundle) -> None:
        compact = bundle.join()
        if len(compact) > LARGEST_BUNDLE_BYTES:
            raise WrongUsage(f"that would be {len(compact)} bytes, and nobody reads more than {LARGEST_BUNDLE_BYTES}")
        replace_file(self.path / f"trust-{held.version}.jws", held.compact, private=False)
        replace_file(self.document, compact, private=False)

    def _root(self, held: Trust) -> StatementKey:
        try:
            key = StatementKey(load_ed25519_private(decode_object(Secret.read(self._root_key).reveal())))
        except Unfit as error:
            raise WrongUsage(f"{error}: {error.mend}; bring the root here, or name its file by --root-key") from error
        except MalformedInput as error:
            raise WrongUsage(f"{self._root_key} holds no root: {error}") from error
        if thumbprint(key.public) != thumbprint(held.root):
            raise WrongUsage(
                f"{self._root_key} is the private key of another root than {self.document.name} is signed by: "
                "name the right one by --root-key (private.next.jwk, where a rotation was cut short)"
            )
        return key
