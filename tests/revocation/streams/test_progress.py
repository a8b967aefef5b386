"""How far a stream is, as a pure matter: whatever a receiver takes in whatever order, nothing is passed over."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from keyturn.contract.errors import MalformedInput
from keyturn.contract.positions import Position
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from revocation.streams import progress as progressing
from revocation.streams.progress import Progress, after, encode_progress, open_tellings, parse_progress
from revocation.streams.telling import Page, Telling

_ENTRY = Entry(selector=Selector(iss="i", kind=SelectorKind.JTI, value="v"), until=1.0)


def page_at(sequence: int, wanted: list[int]) -> Page:
    """Return an event of which some revocations are told."""
    tellings = tuple(Telling(f"{sequence}.{nth}", sequence, nth, _ENTRY, 0.0) for nth in wanted)
    return Page(Position(1, sequence, f"hash-{sequence}"), f"hash-{sequence - 1}", tellings)


@dataclass
class Receiver:
    """What a receiver has taken, and all that there ever was."""

    pages: list[Page] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def behind(self, progress: Progress) -> list[Page]:
        """Return the events behind a progress."""
        return [one for one in self.pages if one.position.sequence > progress.sequence]


class Telling_(RuleBasedStateMachine):  # noqa: N801 - a machine, beside the tuple of that name
    """Events come, and a receiver takes what it is offered in any order; the progress is written and read."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.receiver, self.progress = Receiver(), Progress(1, 0, "")

    @rule(wanted=st.lists(st.integers(0, 9), unique=True, max_size=4))
    def revoke(self, wanted: list[int]) -> None:
        """Append an event."""
        self.receiver.pages.append(page_at(len(self.receiver.pages) + 1, sorted(wanted)))

    @precondition(lambda self: bool(self.offered()))
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        """Take some of what is offered, and say so, with a word about what nobody offered."""
        some = set(data.draw(st.lists(st.sampled_from([one.jti for one in self.offered()]), unique=True)))
        self.receiver.taken |= some
        self.progress = after(self.progress, self.receiver.behind(self.progress), {*some, "7.7.unknown"})
        self.progress = parse_progress(encode_progress(self.progress))

    def offered(self) -> list[Telling]:
        """Return what is open."""
        return open_tellings(self.progress, self.receiver.behind(self.progress))

    @invariant()
    def nothing_is_passed_over_and_nothing_comes_twice(self) -> None:
        """Offer what was not taken, up to the limit and in order, and nothing that was."""
        left = [one.jti for page in self.receiver.pages for one in page.tellings if one.jti not in self.receiver.taken]
        offered = [one.jti for one in self.offered()]
        assert offered == left[: len(offered)]
        assert bool(offered) == bool(left)
        assert len(self.progress.done) < progressing.MOST_OPEN


def test_nothing_is_lost_and_nothing_is_told_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8936, 2.4 leaves it to the receiver which ones it acknowledges, and when."""
    monkeypatch.setattr(progressing, "MOST_OPEN", 6)
    Telling_.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
    Telling_.TestCase("runTest").runTest()


def test_a_receiver_that_never_takes_the_first_one_holds_no_more_than_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise what is remembered about it would grow with every revocation."""
    monkeypatch.setattr(progressing, "MOST_OPEN", 6)
    pages, progress = [page_at(sequence, [0]) for sequence in range(1, 50)], Progress(1, 0, "")
    for _ in range(20):
        progress = after(progress, pages, {one.jti for one in open_tellings(progress, pages)[1:]})
    assert len(progress.done) == 5
    assert [one.jti for one in open_tellings(progress, pages)] == ["1.0"]


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'{"epoch":0,"sequence":0,"hash":""}', b'{"epoch":1,"sequence":1}', b"\xff"]
)
def test_what_is_no_progress_is_known(raw: bytes) -> None:
    """Somebody else may have written it."""
    with pytest.raises(MalformedInput):
        parse_progress(raw)
