"""Debian's redis-server and redis-sentinel behind TLS, with a private authority that a test makes."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keyturn.clock import SystemClock
from keyturn.process.parent import tied
from keyturn.process.settings import RedisSettings
from stack.ports import LOOPBACK, free_port, is_taken
from tests.waiting import eventually

NAME = "feed"


class Authority:
    """A private authority, and the certificates that it signs, in files of a directory."""

    def __init__(self, directory: Path) -> None:
        """Make it."""
        directory.mkdir(exist_ok=True)
        self.ca_file = directory / "ca.pem"
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority of {directory.name}")])
        built = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        self.ca_file.write_bytes(built.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def certify(self, address: str) -> tuple[Path, Path]:
        """Make a certificate for an address; return the files of certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        built = self._builder(subject, key).add_extension(names, critical=False).sign(self._key, hashes.SHA256())
        files = self._directory / f"{address}.pem", self._directory / f"{address}.key"
        files[0].write_bytes(built.public_bytes(serialization.Encoding.PEM))
        files[1].touch(mode=0o600)
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.fromtimestamp(SystemClock().now(), UTC)
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
        )  # fmt: skip


class EncryptedServer:
    """A redis-server that speaks TLS alone; `certified` is the address that its certificate is for."""

    def __init__(self, directory: Path, authority: Authority, *, certified: str = LOOPBACK) -> None:
        """Write the configurations of a server, and of a sentinel that watches it."""
        directory.mkdir(exist_ok=True)
        self.port, self.sentinel_port, self._authority = free_port(), free_port(), authority
        certificate, key = authority.certify(certified)
        encrypted = [
            "port 0", f"bind {LOOPBACK}", f"dir {directory}", 'logfile ""', f"tls-cert-file {certificate}",
            f"tls-key-file {key}", f"tls-ca-cert-file {authority.ca_file}", "tls-auth-clients no",
            "tls-replication yes",
        ]  # fmt: skip
        kept = ['save ""', "appendonly yes", "appendfsync always", "maxmemory-policy noeviction"]
        watching = [f"sentinel monitor {NAME} {LOOPBACK} {self.port} 1"]
        self._commands = {
            "redis-server": _write(directory / "server.conf", [f"tls-port {self.port}", *encrypted, *kept]),
            "redis-sentinel": _write(
                directory / "sentinel.conf", [f"tls-port {self.sentinel_port}", *encrypted, *watching]
            ),
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """Return where it is."""
        return f"rediss://{LOOPBACK}:{self.port}/0"

    @property
    def watched(self) -> RedisSettings:
        """Return the section by which a process finds it through its sentinel."""
        sentinels = (f"{LOOPBACK}:{self.sentinel_port}",)
        return RedisSettings(url=f"rediss://{NAME}/0", sentinels=sentinels, ca_file=self._authority.ca_file)

    async def __aenter__(self) -> Self:
        for program, configuration in self._commands.items():
            self._start(program, configuration)
        for port in (self.port, self.sentinel_port):
            await eventually(partial(is_taken, port), within_seconds=20)
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait(10)

    def _start(self, program: str, configuration: Path) -> None:
        found = shutil.which(program)
        assert found is not None, f"install {program}"
        command, nothing = tied([found, str(configuration)]), subprocess.DEVNULL
        self._processes.append(subprocess.Popen(command, stdin=nothing, stdout=nothing, start_new_session=True))


def _write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path
