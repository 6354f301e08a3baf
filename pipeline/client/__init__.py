"""The client's event loop: windows in, groups out, rows back."""
