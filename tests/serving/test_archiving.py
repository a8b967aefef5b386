"""A service's archive as its settings have it: what it does is logged and counted."""

from pathlib import Path

import pytest

from keyturn.contract.errors import ConfigurationError
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.process.settings import Settings
from serving.archiving import archive_of
from tests.building import FickleRedis, standing


async def test_what_is_archived_and_what_fails_is_counted_by_lane(tmp_path: Path) -> None:
    """An alarm hangs on the failures: the store fills up meanwhile."""
    async with standing(FickleRedis(), deaf=True) as place:
        settings = Settings({"feed": {"archive": "archive"}}, {}, beside=tmp_path)
        with pytest.raises(ConfigurationError, match=r"feed\.archive"):
            archive_of(settings, place.parts)
        (tmp_path / "archive").mkdir()
        archive = archive_of(settings, place.parts)
        assert archive is not None
        await place.revoke(place.world.entry(SelectorKind.JTI, "one"))
        await place.revoke(place.world.entry(SelectorKind.JTI, "two"))
        position = place.member.replica.position(Lane.REVOCATIONS)
        assert position is not None
        (tmp_path / "archive").rmdir()
        assert not await archive.keep(place.parts.feed, Lane.REVOCATIONS, position)
        (tmp_path / "archive").mkdir()
        assert await archive.keep(place.parts.feed, Lane.REVOCATIONS, position)
        shown = place.parts.metrics.render().decode()
    assert 'keyturn_feed_archived_events_total{lane="revocations"} 2.0' in shown
    assert 'keyturn_feed_archive_failures_total{lane="revocations"} 1.0' in shown


async def test_without_the_setting_nothing_is_archived(tmp_path: Path) -> None:
    """As before: the store forgets."""
    async with standing(FickleRedis(), deaf=True) as place:
        assert archive_of(Settings({}, {}, beside=tmp_path), place.parts) is None
