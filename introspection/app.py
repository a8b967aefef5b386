"""The introspection service as a whole: its route over judge, verifier and records."""

from aiohttp import web

from introspection.judge import Judge
from introspection.memory import Memory
from introspection.routes import IntrospectionRoutes
from introspection.settings import IntrospectionSettings
from introspection.signed import SignedAnswers
from keyturn.process.settings import Settings
from keyturn.verifier.verifier import TokenVerifier
from serving.parts import Parts
from serving.probing import StoreProbe
from serving.settings import families as families_of
from serving.settings import grant_life, record_store, signer_of


class IntrospectionService:
    """Answers whether tokens are active."""

    name = "introspection"

    def __init__(self, settings: Settings, parts: Parts) -> None:
        own = settings.section(IntrospectionSettings)
        self._parts = parts
        self._signer = signer_of(self.name, identity=own.identity, signer=own.signer, clock=parts.clock)
        self._records = record_store(settings, parts.redis, parts.clock)
        self._probe = StoreProbe(self._look, parts.clock)
        # That a bound token comes with a proof of its key is for the resource server to see (RFC 9449, 6.2).
        verifier = TokenVerifier(parts.replica, parts.clock, cached_tokens=own.cached_tokens, admit_bound=True)
        signed = SignedAnswers(self._signer, parts.replica, parts.clock)
        memory = Memory(parts.replica, most=own.cached_tokens)
        self._export(memory)
        judge = Judge(
            parts, self._records, families_of(settings, parts.redis), verifier, memory,
            grant_life=grant_life(settings, parts),
        )  # fmt: skip
        self._routes = IntrospectionRoutes(parts, judge, signed)

    def _export(self, memory: Memory) -> None:
        metrics = self._parts.metrics
        metrics.read_gauge("keyturn_introspection_memory_tokens", "Opaque tokens remembered.", lambda: len(memory))
        about = "Questions about tokens that were remembered."
        metrics.read_counter("keyturn_introspection_memory_hits", about, lambda: memory.hits)

    def add_routes(self, app: web.Application) -> None:
        """Add every route of the service."""
        self._routes.add_routes(app)

    def unready(self) -> str | None:
        """Return why nothing can be said of tokens now."""
        return self._parts.unready() or self._probe.unready()

    async def run(self) -> None:
        """Keep the way to the signer open, and look at the store, until cancelled."""
        async with self._signer:
            await self._probe.run()

    async def _look(self) -> None:
        """Do what each question does before anything is said."""
        await self._parts.reach(await self._records.positions())
