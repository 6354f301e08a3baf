"""Benchmarks: each prints a table and, with ``--out``, writes its figures and the machine as JSON.

``python -m approxifer.benchmarks`` lists them, ``python -m approxifer.benchmarks NAME ...`` runs
one. Those with ``--data`` read ``cifar10.npz`` and ``mnist.npz`` from the folder that it names;
those with ``--quick`` can give a first, rough look.
"""

#: A benchmark's name, also that of its module or folder, and what it measures.
BENCHMARKS = {
    "accuracy": "accuracy and agreement when shares are lost and nothing is repaired",
    "selective_repair": "repair=0.995: agreement against evaluations per query",
    "byzantine": "workers that return wrong outputs: detection, wrong rows left, evaluations",
    "commit_latency": "the delay of written windows by spot checks",
    "stragglers": "slow and hung workers: latencies, makespans, evaluations, beside rivals",
    "memory": "the client's peak memory as the input grows",
    "throughput": "bytes a second with a light model, beside a loop and plain Dask",
    "overhead": "fault-free speed against plain Dask",
}
