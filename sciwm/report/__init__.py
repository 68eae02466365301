"""Scores become a page.

In: a skill table, diagnostics, a forecast, a training log. Out: one HTML file with figures, and
sentences. Read `page` first: which sections the report has.
"""
