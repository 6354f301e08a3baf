"""Published figures, to stand beside ours. Never measured here.

From the authors' plotting script of ApproxIFER (Soleymani et al., AAAI 2022, arXiv 2109.09868;
``Bar_plots.py`` in their repository): accuracy of a ResNet-18 in random order, S shares of every
codeword lost. ApproxIFER's is over all rows, ParM's over the lost ones alone. Where its figures
differ from plot to plot, as for K=8, S=1 (0.872 or 0.868 on MNIST), the first is taken.
"""

from __future__ import annotations

#: Accuracy with nothing coded.
BASE = {"MNIST": 0.99, "Fashion-MNIST": 0.97, "CIFAR-10": 0.94}

#: By (K, S): accuracy over all rows.
APPROXIFER = {
    "MNIST": {(8, 1): 0.872, (10, 1): 0.872, (12, 1): 0.868, (8, 2): 0.826, (8, 3): 0.775},
    "Fashion-MNIST": {(8, 1): 0.74, (10, 1): 0.73, (12, 1): 0.72, (8, 2): 0.655, (8, 3): 0.64},
    "CIFAR-10": {(8, 1): 0.776, (10, 1): 0.774, (12, 1): 0.774, (8, 2): 0.741, (8, 3): 0.731},
}

#: By (K, S): accuracy over the lost rows.
PARM = {
    "MNIST": {(8, 1): 0.683, (10, 1): 0.592, (12, 1): 0.503},
    "Fashion-MNIST": {(8, 1): 0.671, (10, 1): 0.590, (12, 1): 0.552},
    "CIFAR-10": {(8, 1): 0.254, (10, 1): 0.204, (12, 1): 0.192},
}
