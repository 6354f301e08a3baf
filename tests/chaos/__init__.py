"""Chaos: seeded faults over runs on real worker processes, and what each must come to.

``make chaos RUNS=200 SEED=...`` plays random schedules (`schedule`), several faults at a time, on
one pool of worker processes (`pool`), and judges each run (`harness`). The tests here play one
fault alone. A run must end *whole*, every row right to the last bit, or with the error that the
table names; then the same command, given again, must end whole.

========================================= ==================================== ==================
fault                                     ends                                 tested in
========================================= ==================================== ==================
slow x2, x10; hung function               whole                                test_one_fault
all workers hang                          ClusterError "no share has come"     pipeline (stall)
SIGSTOP, for good                         whole                                pipeline (engine)
SIGSTOP, SIGCONT                          whole                                test_one_fault
SIGKILL of a worker                       whole                                pipeline (engine)
nanny restart                             whole                                test_one_fault
model raises now and then                 whole                                pipeline (engine)
poisoned row                              whole, the row alone failed          pipeline (engine)
poisoned row, Byzantine workers           whole, the row alone failed          test_one_fault
MemoryError on one block                  whole                                test_one_fault
worker joins                              whole                                pipeline (engine)
worker is retired, vanishes               whole                                test_one_fault
partition (a stalled forwarder)           whole                                test_one_fault
client killed, Ctrl-C                     resumed                              test_one_fault
scheduler killed                          ClusterError "scheduler is gone"     test_machines
disk full (write patched to raise)        OutputError                          test_one_fault
disk full (a real tmpfs, where allowed)   OutputError                          test_machines
input chunk damaged meanwhile             InputError                           test_one_fault
input chunk damaged from the start        InputError, nothing written          test_machines
input chunk missing                       whole; it is the fill value, noted   test_machines
clock an hour forward                     whole                                test_one_fault
clock an hour back                        ClusterError: Dask's streams stop    test_one_fault
========================================= ==================================== ==================
"""
