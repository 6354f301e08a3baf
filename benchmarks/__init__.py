"""Benchmarks: each prints a table and, with ``--out``, writes its figures and the machine as JSON.

===================================================== ========================================
``python -m approxifer.benchmarks.overhead``          fault-free speed against plain Dask
``python -m approxifer.benchmarks.memory``            the client's peak memory as the input grows
``python -m approxifer.benchmarks.accuracy``          what decoding keeps when shares are lost
===================================================== ========================================

`overhead` and `accuracy` read ``cifar10.npz`` and ``mnist.npz`` from the folder that ``--data``
names.
"""
