"""The sidecar: a small HTTP process beside an API or gateway that judges tokens from memory."""
