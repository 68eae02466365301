"""Training loop: Lightning module, callbacks, checkpoints."""
