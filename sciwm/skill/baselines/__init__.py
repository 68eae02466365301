"""Forecasts that cost little and are hard to beat, learnt from the training block alone.

In: a `Reference` (climatology and anomalies of the training block). Out: forecasts from any initial
time. Read `by_name` first: every baseline and how it is fitted.
"""
