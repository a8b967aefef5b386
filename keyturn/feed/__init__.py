"""The signed event log behind a protocol: appended to by publishers, followed by everybody."""
