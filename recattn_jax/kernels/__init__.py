"""Pure functions on arrays: recurrences, attention, positions, segments. They know no framework."""
