"""From a netCDF file to a trained world model, its forecasts and their skill, in Python.

The file here is a small synthetic climate; put your own in its place. Runs in under a minute on two
cores.
"""

import tempfile
from pathlib import Path

import sciwm
from sciwm import testing
from sciwm.config import load_config
from sciwm.run import verbs
from sciwm.run.directory import open_run

folder = Path(tempfile.mkdtemp())
testing.small_climate(years=6).to_netcdf(folder / "climate.nc")

ds = sciwm.open_dataset(folder / "climate.nc")
first = int(ds.time.dt.year[0])
config = load_config(f"""
    data:
      store: {folder / "climate.nc"}
      harmonics: 1
      split:
        train: ["{first}", "{first + 3}"]
        validation: ["{first + 4}", "{first + 4}"]
        test: ["{first + 5}", "{first + 5}"]
    model: {{patch_size: [4, 4], width: 32}}
    train: {{steps: 100, batch_size: 16}}
    forecast: {{lead_times: [1 day, 2 days, 4 days]}}
    skill: {{lim_eofs: [10, 20], resamples: 100}}
    """)
run = open_run(folder / "run", config)
verbs.run_all(run, config)  # the same stages as `sciwm run`; each is a function of its own

wm = sciwm.load(run.path)
latents = wm.encode(ds.isel(time=slice(0, 30)))
print(latents.sizes)
forecast = wm.forecast(ds, init_times=ds.time[-10:-5].values)
print(forecast)
