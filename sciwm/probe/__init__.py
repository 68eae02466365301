"""Readouts fitted on frozen latents.

In: a world model and its training store. Out: the same world model with readouts.
Read `fit` first: which readouts a model gets, and on which blocks.
"""
