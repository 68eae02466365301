"""Score forecasts that sciwm did not make.

They may have the WeatherBench 2 layout, or `init_time` and `lead_time`. Here the forecast is damped
persistence by hand; the linear inverse model and the other baselines come along.
"""

import numpy as np
import xarray as xr

import sciwm
from sciwm import testing

ds = testing.small_climate(years=6)
train = ds.time.dt.year < ds.time.dt.year[0] + 4

mean = ds.isel(time=train.values).mean("time")
init = np.arange(1800, 2100, 2)
leads = np.array([1, 2, 4])
start = ds.isel(time=init).drop_vars("segment").rename(time="init_time") - mean
forecast = xr.concat([mean + 0.8**lead * start for lead in leads], dim="lead_time")
lead_times = (leads * 24).astype("timedelta64[h]").astype("timedelta64[ns]")
forecast = forecast.assign_coords(lead_time=lead_times)

reference = sciwm.skill.fit_reference(ds, train=train.values)
skill = sciwm.skill.evaluate({"by_hand": forecast}, ds, reference=reference, resamples=200)
sciwm.skill.render(skill)
print(sciwm.skill.to_frame(skill).head())
