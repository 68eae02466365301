"""Scalar series read out of latents beside the fields: climate indices and torsions."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciwm.regions import region_weights

__all__ = ["as_components", "stored_series", "target_series"]

_ANGLES = ("rad", "radian", "radians")


def target_series(ds: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """Series of a canonical Dataset, one value per time.

    A name is either a variable ``(time,)`` of the Dataset (``phi``), or a region (``nino34``, or a
    box ``name:south,north,west,east``), whose area mean of the first variable is taken.

    Returns
    -------
    Dataset
        Variables ``(time,)`` in the units of their source.

    Raises
    ------
    ValueError
        If a name is neither; the message lists what there is.
    """
    series = {}
    fields = [v for v in ds.data_vars.values() if v.dims == ("time", "latitude", "longitude")]
    for name in names:
        if name in ds.data_vars and ds[name].dims == ("time",):
            series[name] = ds[name]
            continue
        weights = region_weights(fields[0], (name,))[0] if fields else None
        if weights is None or float(weights.sum()) == 0:
            known = [str(n) for n, v in ds.data_vars.items() if v.dims == ("time",)]
            raise ValueError(
                f"got probe target {name!r}, expected a series of the data"
                f" ({known or 'there is none'}) or a region it covers"
            )
        region = str(weights["region"].values)
        mean = fields[0].weighted(weights.drop_vars("region")).mean(("latitude", "longitude"))
        series[region] = mean.assign_attrs(fields[0].attrs, long_name=f"area mean over {region}")
    return xr.Dataset(series).drop_attrs(deep=False)


def as_components(series: xr.Dataset) -> xr.Dataset:
    """Series ready to be forecast and scored: angles, which jump at ±180°, as sines and cosines.

    Returns
    -------
    Dataset
        Angles together as ``torsions (time, component)`` with components ``phi_sin, phi_cos,
        psi_sin, …``, unitless; everything else unchanged.
    """
    angles = [str(n) for n, v in series.data_vars.items() if v.attrs.get("units") in _ANGLES]
    out = series.drop_vars(angles)
    if angles:
        parts: list[xr.DataArray] = [
            part for n in angles for part in (np.sin(series[n]), np.cos(series[n]))
        ]  # type: ignore[misc]
        labels = [f"{n}_{f}" for n in angles for f in ("sin", "cos")]
        stacked = xr.concat(
            parts, dim=xr.Variable("component", labels), coords="minimal", compat="override"
        ).transpose("time", "component")
        out["torsions"] = stacked.assign_attrs(
            units="1", long_name="sine and cosine of torsion angles"
        )
    return out


def stored_series(store: xr.Dataset) -> xr.Dataset | None:
    """Series kept in a training store, as `as_components` gives them, with ``time`` and ``segment``; None without any."""
    if "target" not in store:
        return None
    names = [str(n) for n in store["target_name"].values]
    columns = {
        n: store["target"].isel(target=i).drop_vars("target_name", errors="ignore")
        for i, n in enumerate(names)
    }
    torsions = [n for n in names if n.endswith(("_sin", "_cos"))]
    out = xr.Dataset({n: columns[n] for n in names if n not in torsions})
    if torsions:
        stacked = xr.concat(
            [columns[n] for n in torsions],
            dim=xr.Variable("component", torsions),
            coords="minimal",
            compat="override",
        )
        out["torsions"] = stacked.transpose("time", "component").assign_attrs(units="1")
    return out.assign_coords(segment=store["segment"].load()).compute()
