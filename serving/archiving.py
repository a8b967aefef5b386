"""The archive of a publisher as `[feed]` has it, and what is logged and counted of it."""

from keyturn.feed.archive import ARCHIVED, FAILED, Archive
from keyturn.process.feeding import FeedSettings
from keyturn.process.settings import Settings
from serving.parts import Parts


def archive_of(settings: Settings, parts: Parts) -> Archive | None:
    """Return the archive that events go to before the store forgets them, None if none is kept.

    Raises ConfigurationError for one that cannot be written.
    """
    events = parts.metrics.counter(
        "keyturn_feed_archived_events", "Events that were written to the archive.", labels=("lane",)
    )
    failures = parts.metrics.counter(
        "keyturn_feed_archive_failures", "Times that events could not be archived, and were not forgotten.",
        labels=("lane",),
    )  # fmt: skip

    def note(event: str, **facts: object) -> None:
        if event == ARCHIVED:
            parts.log.info(event, **facts)
            events.labels(facts["lane"]).inc(float(str(facts["events"])))
        elif event == FAILED:
            parts.log.error(event, **facts)
            failures.labels(facts["lane"]).inc()
        else:
            parts.log.warning(event, **facts)

    directory = settings.section(FeedSettings).archive
    if directory is None:
        return None
    archive = Archive(directory, note=note)
    archive.require_writable()
    return archive
