"""The arq worker: runs the services' scheduled jobs."""
