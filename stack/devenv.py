"""`dev.env`: where everything is, and the credentials to use it, for the person at the keyboard."""

import os
from pathlib import Path

from keyturn.process.values import Secret
from stack.plan import Orders, signs_in

FILE = "dev.env"


def write_dev_env(orders: Orders, redis_url: str) -> Path:
    """Write `DIR/dev.env` in one step, mode 0600: `NAME=value`, absolute paths, no quotes."""
    directory = orders.directory.absolute()
    values = {
        "KEYTURN_ISSUER": orders.issuer,
        "KEYTURN_SIDECAR_URL": orders.sidecar_urls[0] if orders.sidecar_urls else "",
        "KEYTURN_SIDECAR_URLS": ",".join(orders.sidecar_urls),
        "KEYTURN_REDIS_URL": redis_url,
        "KEYTURN_ROOT": str(directory / "root.jwk"),
    }
    clients = {"CLIENT": "client", "RESOURCE": "resource", "ADMIN": "admin"}
    if signs_in(orders):
        values["KEYTURN_APP_ID"] = "app"  # A public client: it has no secret.
        clients["SIGNIN"] = "signin"
    for name, client_id in clients.items():
        values[f"KEYTURN_{name}_ID"] = client_id
        values[f"KEYTURN_{name}_SECRET"] = Secret.read(directory / "clients" / f"{client_id}.secret").reveal_text()
    path, fresh = directory / FILE, directory / f"{FILE}.new"
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("".join(f"{name}={value}\n" for name, value in values.items()))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return path


def read_dev_env(path: Path) -> dict[str, str]:
    """Return the names and values of a `dev.env`."""
    pairs = (line.partition("=") for line in path.read_text().splitlines() if line)
    return {name: value for name, _, value in pairs}
