"""States become tokens.

In: states of a grid or a molecule. Out: features, positions and masks of tokens.
Read `grid` first; `molecule` is the same for atoms.
"""
