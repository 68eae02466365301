"""Forecast verification: scores, baselines, intervals, reports. Knows nothing of torch."""
