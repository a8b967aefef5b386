"""The command line: operate a running Keyturn, ask about tokens, and set up what it needs."""
