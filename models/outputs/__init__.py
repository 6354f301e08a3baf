"""Outputs of a model: one or several, and what is made of them afterwards."""
