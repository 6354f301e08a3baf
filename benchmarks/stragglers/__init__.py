"""Slow and hung workers: latencies of groups, makespans, evaluations."""
