"""Canonical Datasets become training stores.

In: a canonical Dataset and the blocks of time. Out: standardized anomalies laid out for training,
and what was learnt to make them. Read `prepare` first: what is written, and in which order.
"""
