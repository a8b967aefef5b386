"""A real nginx on loopback, run with configuration files of `deploy/nginx` or of a test's own."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from keyturn.process.parent import tied
from stack.ports import is_taken
from tests.waiting import eventually

# Around `http`, only what a process of its own needs to run beside others, and not as a daemon.
_FRAME = """\
{user}
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{content}
}}
"""


def nginx_command(directory: Path, contents: Iterable[str]) -> list[str]:
    """Write nginx's configuration, with these texts in its http context, into a new directory; return its command."""
    directory.mkdir(parents=True)
    configuration = directory / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # Another user could not enter the test's directory.
    configuration.write_text(_FRAME.format(user=user, directory=directory, content="\n".join(contents)))
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    assert found, "nginx is not installed (apt-get install nginx-light)"
    return [found, "-e", str(directory / "error.log"), "-c", str(configuration)]


@asynccontextmanager
async def running_nginx(directory: Path, *contents: str, port: int) -> AsyncIterator[None]:
    """Run nginx until the block ends; begins once `port`, which one of the texts listens on, is open."""
    process = _start(directory, contents)
    try:
        await eventually(
            lambda: is_taken(port) or process.poll() is not None,
            saying=(directory / "error.log").read_text,
        )
        assert process.poll() is None, (directory / "error.log").read_text()
        yield
    finally:
        process.terminate()
        await eventually(lambda: process.poll() is not None)


def _start(directory: Path, contents: Iterable[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(tied(nginx_command(directory, contents)), stdin=subprocess.DEVNULL)
