import numpy as np
import pytest
import xarray as xr
from truths import forecast_of, weather
from truths import scored as evaluate

from sciwm.regions import Region, land_fraction, parse_region, region_weights
from sciwm.skill import fit_reference


def field(latitude, longitude):
    return xr.DataArray(
        np.zeros((len(latitude), len(longitude))),
        coords=[("latitude", latitude), ("longitude", longitude)],
    )


LATITUDE = np.arange(-87.5, 90, 5.0)


def test_the_whole_domain_is_weighted_by_the_cosine_of_latitude():
    weights = region_weights(field(LATITUDE, np.arange(0, 360, 5.0)))
    assert weights.region.values.tolist() == ["all"]
    np.testing.assert_allclose(weights.isel(region=0, longitude=3), np.cos(np.deg2rad(LATITUDE)))
    for name in ("global", "domain"):
        xr.testing.assert_equal(
            region_weights(field(LATITUDE, np.arange(0, 360, 5.0)), [name]), weights
        )


@pytest.mark.parametrize("start", [0.0, 2.5, -180.0, -177.5, 100.0])
@pytest.mark.parametrize("spacing", [5.0, 7.5, 2.0])
def test_nino34_has_the_same_share_of_the_circle_in_every_longitude_convention(start, spacing):
    longitude = start + np.arange(0, 360, spacing)
    weights = region_weights(field(np.array([-2.5, 2.5]), longitude), ["nino34"])
    per_latitude = weights.isel(region=0, latitude=0) / np.cos(np.deg2rad(2.5))
    assert float(per_latitude.sum()) * spacing == pytest.approx(50.0)
    centre = float((longitude % 360 * per_latitude).sum() / per_latitude.sum())
    assert centre == pytest.approx(215.0, abs=spacing / 8)


def test_cells_across_the_edge_of_a_box_count_in_part():
    weights = region_weights(
        field(np.array([0.0, 10.0, 20.0]), np.array([0.0, 10.0, 20.0])), ["half:-5,10,-5,25"]
    )
    fraction = weights.isel(region=0, longitude=0) / np.cos(np.deg2rad(weights.latitude))
    np.testing.assert_allclose(fraction, [1.0, 0.5, 0.0], atol=1e-12)


def test_a_box_across_greenwich_and_one_across_the_date_line():
    longitude = np.arange(0, 360, 10.0)
    europe = region_weights(field(np.array([45.0, 50.0]), longitude), ["europe:40,60,-15,15"]).isel(
        region=0, latitude=0
    )
    assert set(longitude[europe.values > 0]) == {350.0, 0.0, 10.0}
    pacific = region_weights(
        field(np.array([45.0, 50.0]), longitude), ["pacific:40,60,165,-165"]
    ).isel(region=0, latitude=0)
    assert set(longitude[pacific.values > 0]) == {170.0, 180.0, 190.0}


def test_hemispheres_and_tropics_cover_the_globe_once():
    names = ["tropics", "northern_extratropics", "southern_extratropics"]
    whole = region_weights(field(LATITUDE, np.arange(0, 360, 5.0)))
    parts = region_weights(field(LATITUDE, np.arange(0, 360, 5.0)), names)
    xr.testing.assert_allclose(parts.sum("region"), whole.isel(region=0, drop=True))


def test_a_domain_of_one_row_counts_by_its_centre():
    weights = region_weights(
        field(np.array([0.0]), np.arange(0, 360, 5.0)), ["nino34", "northern_extratropics"]
    )
    assert weights.sum(("latitude", "longitude")).values.tolist() == [10.0, 0.0]


def test_components_are_chosen_by_prefix():
    torsions = xr.DataArray(
        np.zeros(5),
        coords=[("component", ["phi_sin", "phi_cos", "psi_sin", "psi_cos", "phi2_sin"])],
    )
    weights = region_weights(torsions, ["all", "phi", "psi_cos", "tropics"])
    assert weights.values.tolist() == [
        [1, 1, 1, 1, 1],
        [1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0],
    ]


def test_an_index_has_weight_one():
    weights = region_weights(xr.DataArray([1.0, 2.0], dims="time"), ["all", "nino34"])
    assert weights.values.tolist() == [1.0, 0.0]


def test_regions_are_read_from_text():
    assert parse_region("alps:44, 48, 5,16.5") == Region("alps", 44, 48, 5, 16.5)
    assert parse_region("phi") is None
    with pytest.raises(ValueError, match="expected 'name:south,north,west,east'"):
        parse_region("alps:44,48,5")
    with pytest.raises(ValueError, match="expected 'all' once"):
        region_weights(field(LATITUDE, np.arange(0, 360, 5.0)), ["all", "global"])
    with pytest.raises(ValueError, match="south < north"):
        parse_region("alps:48,44,5,16")


def test_a_box_of_ones_own_is_an_index():
    observed = weather(700)
    forecast = forecast_of(observed, range(500, 600), np.array([2]), noise=2.0)
    reference = fit_reference(observed, train=slice("2000", "2000"), harmonics=1)
    options = {"reference": reference, "baselines": (), "metrics": ("correlation",), "resamples": 0}
    # The middle row and what is south of it, two columns.
    skill = evaluate(forecast, observed, regions=("mine:35,51,-2.5,7.5",), **options)
    area = np.cos(np.deg2rad(observed.latitude.values[:2]))
    normal = reference.climatology.at(observed.time[502:602]).t850.values
    fields = forecast.t850[:, 0].values, observed.t850.values[502:602]
    means = [(f - normal)[:, :2, :2].mean(axis=2) for f in fields]
    index = [np.average(mean, axis=1, weights=area * [1.0, 0.6]) for mean in means]
    assert skill.value.item() == pytest.approx(np.corrcoef(*index)[0, 1])


def coast(observed):
    """Two columns of sea, one of half land, one of land."""
    share, dims = np.broadcast_to([0.0, 0.0, 0.5, 1.0], (3, 4)), ("latitude", "longitude")
    return xr.DataArray(share, {d: observed[d] for d in dims}, dims)


def test_land_and_ocean_share_the_coast():
    observed = weather(20)
    everywhere, land, ocean = region_weights(
        observed.t850, ["all", "land", "ocean"], land=coast(observed)
    )
    np.testing.assert_allclose(land + ocean, everywhere)
    np.testing.assert_allclose((land / everywhere)[0], [0, 0, 0.5, 1])
    assert region_weights(xr.DataArray([1.0, 2.0], dims="time"), ["land"]).values.tolist() == [0.0]


def test_land_is_found_beside_the_observations_or_given():
    observed = weather(400)
    forecast = forecast_of(observed, range(300, 360), np.array([1]))
    options = {"baselines": (), "metrics": ("rmse",), "regions": ("land", "ocean"), "resamples": 0}
    percent = (100 * coast(observed)).assign_attrs(units="%", standard_name="land_area_fraction")
    found = evaluate(forecast, observed.assign(mask=percent), **options)
    given = evaluate(forecast, observed, mask=coast(observed), **options)
    xr.testing.assert_allclose(found.value, given.value)
    error = (forecast.t850[:, 0].values - observed.t850.values[301:361]) ** 2
    area = np.cos(np.deg2rad(observed.latitude.values))[:, None] * coast(observed).values
    expected = np.sqrt((error * area).sum() / area.sum() / 60)
    assert given.value.sel(region="land").item() == pytest.approx(expected)
    none = r"got region 'land' without a land–sea mask, expected .* --mask STORE"
    with pytest.raises(ValueError, match=none):
        evaluate(forecast, observed, **options)
    other = "mask with 4 of longitude from 1 to 16, expected those of the observations"
    moved = coast(observed).assign_coords(longitude=observed.longitude + 1)
    with pytest.raises(ValueError, match=other):
        evaluate(forecast, observed, mask=moved, **options)
    with pytest.raises(ValueError, match=r"values from 0 to 2, expected 0 \(sea\) to 1 \(land\)"):
        evaluate(forecast, observed, mask=2 * coast(observed), **options)
    assert land_fraction(observed) is None
