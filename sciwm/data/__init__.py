"""Foreign files become canonical Datasets.

In: any store xarray can read. Out: names, units, calendars and axes that nothing downstream guesses
at. Read `open` first: `open_dataset`, and `open_forecast` for forecasts.
"""
