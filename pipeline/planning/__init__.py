"""What is settled before any worker is asked: options, partition, checks of input and model."""
