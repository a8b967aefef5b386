"""What every HTTP service shares: one error table, client authentication, records, and how it is served."""
