"""Everything before a worker is asked: options, partition, checks of input and model."""
