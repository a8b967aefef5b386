"""The composition root: the whole system on an embedded server, for a laptop, the demo and tests."""
