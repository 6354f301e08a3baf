"""Datasets in the formats in which they are published: IDX files, CIFAR-10's pickles, .npz."""
