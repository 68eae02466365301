"""Roll latents forward and write labelled forecasts."""
