"""Scalar series read out of latents beside the fields: climate indices and torsions."""

from collections.abc import Mapping, Sequence

import xarray as xr

from sciwm.regions import region_weights

__all__ = ["as_components", "stored_series", "target_series"]

_ANGLES = ("rad", "radian", "radians")


def target_series(ds: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """Series of a canonical Dataset, one value per time.

    A name is a variable ``(time,)`` of the Dataset, such as ``phi``, or a region. A region is
    ``nino34`` or a box ``name:south,north,west,east``. Its series is the area mean of the first
    field.

    Parameters
    ----------
    ds : Dataset
        Canonical.
    names : sequence of str
        As in ``probe.targets``.

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

    Parameters
    ----------
    series : Dataset
        From `target_series`; angles are those in radians.

    Returns
    -------
    Dataset
        Angles together as ``torsions (time, component)`` with components ``phi_sin, phi_cos,
        psi_sin, …``, unitless; everything else unchanged.
    """
    angles = [str(n) for n, v in series.data_vars.items() if v.attrs.get("units") in _ANGLES]
    out = series.drop_vars(angles)
    if angles:
        functions = {"sin": xr.ufuncs.sin, "cos": xr.ufuncs.cos}
        parts = {f"{n}_{f}": functions[f](series[n]) for n in angles for f in functions}
        name = "sine and cosine of torsion angles"
        out["torsions"] = _stack(parts).assign_attrs(units="1", long_name=name)
    return out


def _stack(parts: Mapping[str, xr.DataArray]) -> xr.DataArray:
    """Components side by side, ``(time, component)``."""
    stacked = xr.concat(
        list(parts.values()),
        dim=xr.Variable("component", list(parts)),
        coords="minimal",
        compat="override",
    )
    return stacked.transpose("time", "component")


def stored_series(store: xr.Dataset) -> xr.Dataset | None:
    """Series kept in a training store, as `as_components` gives them; None without any.

    Parameters
    ----------
    store : Dataset
        From `sciwm.store.prepare.open_training_store`.

    Returns
    -------
    Dataset or None
        In memory, with ``time`` and ``segment``.
    """
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
        out["torsions"] = _stack({n: columns[n] for n in torsions}).assign_attrs(units="1")
    return out.assign_coords(segment=store["segment"].load()).compute()
