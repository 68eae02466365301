"""The networks and what they minimise.

In: tokens. Out: latents, of now and of later, and a loss.
Read `jepa` first; `objectives` lists what can be trained.
"""
