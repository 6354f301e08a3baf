"""The user's own Python code: what it may do here, and which code it is."""
