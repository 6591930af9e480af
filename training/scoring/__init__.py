"""How good a transcript is: alignment, measures, intervals, significance, and the report of all that."""
