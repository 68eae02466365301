"""The loader without the world model: windows of any xarray data for a network of your own."""

import tempfile
from pathlib import Path

import torch

import sciwm
from sciwm import testing
from sciwm.store.prepare import Blocks, Fit, prepare

folder = Path(tempfile.mkdtemp())
ds = testing.small_climate(years=4)
first = int(ds.time.dt.year[0])
blocks = Blocks(
    train=[str(first), str(first + 2)],
    validation=[str(first + 3), str(first + 3)],
    gap_steps=2,
)
store = prepare(ds, folder / "train.zarr", blocks=blocks, fit=Fit(harmonics=1))

network = torch.nn.Sequential(
    torch.nn.Conv2d(2, 32, 3, padding=1), torch.nn.GELU(), torch.nn.Conv2d(32, 2, 3, padding=1)
)
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
order = sciwm.Order(epochs=3, seed=0)
batches = sciwm.stream(store, window=2, batch_size=32, order=order)
for step, batch in enumerate(batches):
    now, later = batch.values[:, 0], batch.values[:, 1]
    loss = (now + network(now) - later).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 25 == 0:
        persistence = (now - later).square().mean()
        print(f"step {step}: {loss.item():.3f}, persistence {persistence.item():.3f}")
# Keep this with your checkpoint: `load_state_dict` goes on at the next batch.
print(batches.state_dict())
