"""What must hold after every event, signature, tick and second of a history."""

from typing import TYPE_CHECKING

from keyservice.rotator import Order, Outcome
from keyturn.contract.keys import KeyRecord, KeySet, Phase, Removed, Use
from keyturn.contract.positions import Lane
from keyturn.contract.rotation import APPEND_SECONDS, Adoption, AtDeadline, Barrier
from keyturn.verifier.freshness import State
from keyturn.verifier.verdict import Kind
from tests.rotation.facts import Broken, Landed, Token

if TYPE_CHECKING:
    from tests.rotation.model import Model
    from tests.rotation.processes import Service, Verifier

_ALG = "ES256"


def of_an_event(model: "Model", landed: Landed, adoption: Adoption) -> None:
    """One key signs, its standbys stand, whoever could serve holds what signs, and nothing live loses its key."""
    one_key_signs(landed.after, _ALG)
    standbys = landed.after.of(_ALG, Use.ACCESS, Phase.PUBLISHED)
    if len(standbys) != model.rules.standbys:
        raise Broken("standbys stand", count=len(standbys), wanted=model.rules.standbys)
    if sum(one.event.id == landed.event.id for one in model.chain) != 1:
        raise Broken("an order is carried out once", id=landed.event.id)
    for change in landed.event.changes:
        if isinstance(change, Removed):
            _nothing_lives_of(model, change.kid)
    if landed.waits_for_nobody():
        model.reached["emergencies"] += bool(len(landed.before))
        return
    for key in landed.activated():
        model.reached["activations"] += 1
        _everybody_holds(model, key)
        _was_asked(model, landed, key)
        _count_barrier(model, landed, key, adoption)


def one_key_signs(keys: KeySet, alg: str) -> None:
    """Check that exactly one key of an algorithm is active."""
    active = keys.of(alg, Use.ACCESS, Phase.ACTIVE)
    if len(active) != 1:
        raise Broken("one key signs", active=[key.kid for key in active])


def _nothing_lives_of(model: "Model", kid: str) -> None:
    model.reached["removals"] += 1
    living = [token for token in model.live_tokens() if token.kid == kid]
    if living:
        raise Broken("a key is removed after its tokens", kid=kid, living=len(living))


def _everybody_holds(model: "Model", key: KeyRecord) -> None:
    for verifier in model.verifiers.values():
        if verifier.state is not State.EXPIRED and key.kid not in verifier.member.replica.verification:
            raise Broken("whoever could serve holds the key that signs", lacking=verifier.name, kid=key.kid)
    if model.rules.barrier is Barrier.REPORTS:
        return  # Who pulls is not waited for: C is 0.
    for puller in model.pullers:
        if puller.kids and model.boottime < puller.until_boottime and key.kid not in puller.kids:
            raise Broken("a cached JWKS holds the key that signs", kid=key.kid)


def _was_asked(model: "Model", landed: Landed, key: KeyRecord) -> None:
    before = landed.before.active(_ALG, Use.ACCESS)
    request = landed.before.requested(_ALG, Use.ACCESS)
    if before is None or before.active_at is None:
        return
    period_over = landed.event.at >= before.active_at + model.rules.active_seconds
    asked = request is not None and (request.not_before is None or landed.event.at >= request.not_before)
    # An order that the rules allow at once is carried out without being written down first.
    at_once = any((order.not_before or 0) <= landed.event.at for order in model.asking)
    if not period_over and not asked and not at_once:
        raise Broken("a key signs when it was asked for", kid=key.kid)
    model.reached["by schedule"] += period_over
    model.reached["at a moment to come"] += asked and request is not None and request.not_before is not None


def _count_barrier(model: "Model", landed: Landed, key: KeyRecord, adoption: Adoption) -> None:
    waited = landed.event.at - key.published_at
    if adoption.complete and adoption.laggards(key.published_place):
        past = waited >= model.rules.publication_seconds + model.rules.deadline_seconds
        model.reached["activated past the deadline" if past else "activated by time, with laggards"] += 1
    elif waited < model.rules.publication_seconds:
        model.reached["activated by reports"] += 1
    elif not adoption.complete:
        model.reached["activated while the set was not known"] += 1


def of_a_signature(model: "Model", token: Token, service: "Service") -> None:
    """Check that the store confirmed within G what the signer knew, and that its key ended at most G ago."""
    ended = next((one.boottime for one in model.chain if one.ended(token.kid)), None)
    signed_in_time(
        signer=service.name, record=model.key(token), lease_seconds=model.rules.lease_seconds,
        accepted_ago=model.boottime - service.line.accepted_at,
        ended_ago=None if ended is None else model.boottime - ended,
    )  # fmt: skip
    model.reached["signed by a key that had just ended"] += ended is not None


def signed_in_time(
    *, signer: str, record: KeyRecord, lease_seconds: float, accepted_ago: float, ended_ago: float | None
) -> None:
    """Check a signature: the store took a write of its signer's within G, and its key ended at most G ago."""
    if accepted_ago >= lease_seconds:
        raise Broken("nothing is signed without a lease", signer=signer)
    if record.active_at is None or (ended_ago is not None and ended_ago > lease_seconds):
        raise Broken("nothing is signed by a key that is not active", phase=record.phase, signer=signer)


def of_a_tick(model: "Model", service: "Service") -> None:
    """Who knows all and has done all that is due leaves nothing behind; and note what is held back."""
    replica, rules = service.member.replica, model.rules
    top = model.chain[-1].event if model.chain else None
    if top is None or replica.place(Lane.KEYS) != (top.epoch, top.sequence) or not service.reaches:
        return
    now = service.clock.now()
    aftermath = APPEND_SECONDS + rules.lease_seconds + rules.token_seconds + 2 * rules.skew_seconds
    for key in replica.keys.of(_ALG, Use.ACCESS, Phase.RETIRING):
        if key.retiring_at is not None and now > key.retiring_at + aftermath + 0.001:
            raise Broken("a retired key is removed in time", kid=key.kid, late=now - key.retiring_at - aftermath)
    request, standby = replica.keys.requested(_ALG, Use.ACCESS), replica.keys.standby(_ALG, Use.ACCESS)
    adoption = service.watch.adoption()
    if request is None or standby is None or (request.not_before or 0) > now:
        return
    if not adoption.complete:
        model.reached["waits by time alone"] += 1
    elif adoption.laggards(standby.published_place):
        model.reached["held by the barrier"] += 1
        deadline = standby.published_at + rules.publication_seconds + rules.deadline_seconds
        if now >= deadline and rules.at_deadline is AtDeadline.HOLD:
            model.reached["held past the deadline"] += 1


async def of_a_second(model: "Model") -> None:
    """No good token is rejected, no revoked key's token accepted, by anybody who can be asked now."""
    for verifier in model.verifiers.values():
        if verifier.frozen:
            continue
        model.reached[f"asked while {verifier.state}"] += 1
        for token in model.tokens:
            if model.now >= token.exp:
                continue
            if model.key(token).phase is Phase.REVOKED:
                _is_not_accepted(model, verifier, token)
            else:
                await _is_not_rejected(model, verifier, token)
    if model.rules.barrier is Barrier.REPORTS:
        return
    for puller in model.pullers:
        for token in model.live_tokens():
            if puller.kids and token.kid not in puller.kids and token.kid not in model.hasty:
                raise Broken("no puller rejects a good token", kid=token.kid)


async def _is_not_rejected(model: "Model", verifier: "Verifier", token: Token) -> None:
    verdict = verifier.judge(token)
    if verdict.kind is Kind.INACTIVE and token.kid in model.hasty:
        model.reached["looked for an unknown kid"] += 1
        verdict = await verifier.judge_by_rule_8(token)
    if verdict.kind is Kind.INACTIVE:
        raise Broken("no verifier rejects a good token", verifier=verifier.name, why=verdict.reason)


def _is_not_accepted(model: "Model", verifier: "Verifier", token: Token) -> None:
    if verifier.judge(token).kind is not Kind.ACTIVE:
        model.reached["refused a revoked key"] += 1
        return
    revoked = next(one for one in model.chain if one.after.get(token.kid) == model.key(token))
    if verifier.member.replica.place(Lane.KEYS) >= (revoked.event.epoch, revoked.event.sequence):
        raise Broken("who adopted a tombstone obeys it", verifier=verifier.name)
    exposed = model.boottime - revoked.boottime
    if exposed > model.rules.expired_seconds + model.rules.skew_seconds:
        raise Broken("a revoked key is accepted for E + S at most", verifier=verifier.name, seconds=exposed)
    model.reached["exposed to a revoked key"] += 1


def of_a_repeated_order(model: "Model", order: Order, first: Outcome | None, again: Outcome | None) -> None:
    """Who repeats an order that was carried out is told so."""
    if first is not None and first.event is not None and again is not None and again.event is not None:
        raise Broken("an order is carried out once", id=order.event_id)
    model.reached["orders repeated"] += 1


def of_the_end(model: "Model") -> None:
    """Once everybody is well again and time has passed, nothing is left to do and everybody agrees."""
    if model.truth.requests:
        raise Broken("every order is carried out in the end", requests=model.truth.requests)
    if model.truth.of(_ALG, Use.ACCESS, Phase.RETIRING):
        raise Broken("a retired key is removed in time")
    top = model.chain[-1].event
    for name, process in model.processes.items():
        if process.member.replica.place(Lane.KEYS) != (top.epoch, top.sequence):
            raise Broken("everybody catches up in the end", name=name)
    for verifier in model.verifiers.values():
        if verifier.state is not State.FRESH:
            raise Broken("everybody is fresh in the end", name=verifier.name)
