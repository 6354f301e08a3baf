"""Safe loading of a `.pt2`: the list of operators, bounds, checks before calls, and the trial."""
