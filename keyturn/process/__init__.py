"""What every process shares: settings, logging, the Redis connection, metrics, and how it starts and ends."""
