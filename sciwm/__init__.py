"""A scientific world model for time series on grids and molecules."""
