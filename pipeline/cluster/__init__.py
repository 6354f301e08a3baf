"""Clusters to run on: local processes, an address, batch jobs."""
