"""From any store to batches: open, prepare, windows, stream."""
