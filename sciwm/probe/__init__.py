"""Closed-form readouts of frozen latents."""
