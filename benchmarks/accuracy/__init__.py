"""Accuracy where shares are lost and nothing is repaired, of all schemes side by side."""
