"""The verifier: a trusted replica of the feed, kept current, and verdicts on tokens from memory alone."""
