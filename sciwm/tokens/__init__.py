"""A state becomes tokens with positions and a validity mask."""
