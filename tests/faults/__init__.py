"""Chaos: seeded faults over runs on real worker processes, and what each must come to.

``make chaos RUNS=200 SEED=...`` plays random schedules (`schedule`), several faults at a time, on
one pool of worker processes (`pool`), and judges each run (`harness`). The tests here play one
fault alone. A run must end *whole*, every row right to the last bit, or with the error that the
table names; then the same command, given again, must end whole.
"""
