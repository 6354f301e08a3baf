"""Workers that return wrong outputs: detection, wrong rows left, evaluations."""
