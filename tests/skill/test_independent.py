"""Every score against implementations that know nothing of ours, on random and on adversarial data.

The rules of missing values are ours (cells missing in the observations leave with their weight, a
forecast missing where something was observed gives NaN, initial times without observations do not
count) and are applied here around the libraries.
"""

import operator
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import scores.spatial
import scoringrules
import sklearn.metrics
import xarray as xr
import xskillscore
from truths import DAY, days

from sciwm.regions import region_weights
from sciwm.skill.ensemble import ensemble_sums, rank_histogram
from sciwm.skill.events import Event, event_sums
from sciwm.skill.fractions import fraction_sums
from sciwm.skill.metrics import METRICS, find_metric, is_event_metric
from sciwm.skill.scores import (
    area_means,
    mean_over_inits,
    score_sums,
)
from sciwm.skill.seeps import RainClimate, seeps_sums
from sciwm.skill.spectra import zonal_spectrum

KEEP = ["init_time", "lead_time"]
SPACE = ["latitude", "longitude"]
CASES = (
    *("random", "missing observations", "missing forecasts", "one member", "zero variance"),
    *("one initial time", "one cell", "all missing"),
)
EVENT = Event("t", ">", 0.5)


@dataclass(frozen=True)
class Case:
    """Fields ``(init, lead, latitude, longitude)``, members last; weights of cells."""

    members: xr.DataArray
    truth: xr.DataArray
    climatology: xr.DataArray
    area: xr.DataArray

    @property
    def mean(self):
        return self.members.mean("number", skipna=False)

    @property
    def share(self):
        """Weight of each cell in the mean over initial times.

        Those of an initial time add up to 1 where anything is observed.
        """
        weight = (self.area * self.truth.notnull()).transpose(*self.truth.dims)
        total = weight.sum(SPACE)
        return weight / total.where(total > 0, 1.0)

    @property
    def lost(self):
        """Leads at which a forecast is missing where something was observed."""
        lost = self.members.isnull().any("number") & self.truth.notnull()
        return lost.any(["init_time", *SPACE]).values


def case_of(name):
    random = np.random.default_rng(CASES.index(name))
    inits = 1 if name == "one initial time" else 9
    one_cell = name == "one cell"
    coords = {
        "init_time": days(inits),
        "lead_time": [1, 2],
        "latitude": [40.0] if one_cell else np.linspace(-60, 60, 4),
        "longitude": [10.0] if one_cell else np.arange(0, 360, 60.0),
    }
    shape = tuple(len(v) for v in coords.values())
    centre, climatology = (
        xr.DataArray(random.standard_normal(shape), coords, tuple(coords)) for _ in range(2)
    )
    truth = centre + random.standard_normal(shape)
    number = 1 if name == "one member" else 6
    own = coords | {"number": np.arange(number)}
    noise = xr.DataArray(random.standard_normal((*shape, number)), own, tuple(own))
    members = (0.2 + centre + 0.8 * noise).transpose(*coords, "number")
    if name == "missing observations":
        truth = truth.where(random.random(shape) > 0.3)
        truth[4] = np.nan
        members = members.where(truth.notnull() | (random.random(shape) > 0.5))
    elif name == "missing forecasts":
        members[2, 1, 1, 3, 0] = np.nan
    elif name == "zero variance":
        members = xr.ones_like(members)
        truth, climatology = xr.zeros_like(truth), xr.zeros_like(truth)
    elif name == "all missing":
        truth = truth * np.nan
    return Case(members, truth, climatology, region_weights(truth).isel(region=0, drop=True))


def climate_of(case):
    random = np.random.default_rng(7)
    months = xr.DataArray(np.zeros(12), dims="time", coords={"time": np.arange(12)})
    like = months * case.truth.isel(init_time=0, lead_time=0, drop=True).fillna(0.0)
    return RainClimate(
        0.25,
        like + random.uniform(0.05, 0.95, like.shape),
        like + random.uniform(0.5, 1.0, like.shape),
    )


def fss_of(case):
    """The metric of the largest neighbourhood that fits, up to 3 × 3 cells."""
    return "fss_3" if case.truth.sizes["latitude"] > 2 else "fss_1"


def ours(case, metric):
    weights = region_weights(case.truth)
    forecast = case.members.transpose("init_time", "lead_time", "number", ...)
    fields = (forecast, case.truth, case.climatology)
    if is_event_metric(metric):
        sums = event_sums(*fields, event=EVENT, weights=weights)
        if metric.startswith("fss"):
            more = fraction_sums(*fields, event=EVENT, size=int(metric[-1]), weights=weights)
            sums = xr.concat([sums, more], "statistic")
    elif metric == "seeps":
        valid = case.truth["init_time"].values[:, None] + case.truth["lead_time"].values * DAY
        single = score_sums(case.mean, case.truth, weights=weights)
        more = seeps_sums(forecast, case.truth, climate_of(case), valid=valid, weights=weights)
        sums = xr.concat([single, more], "statistic")
    else:
        single = score_sums(case.mean, case.truth, case.climatology, weights=weights)
        more = ensemble_sums(*fields, weights=weights, energy=True)
        sums = xr.concat([single, more.transpose(*single.dims)], "statistic")
    means = mean_over_inits(area_means(sums.compute()))
    return find_metric(metric).compute(means).isel(region=0).values


def over_inits(per_init):
    """Mean over the initial times that have a value; NaN without any."""
    return per_init.mean("init_time").values


def by_lead(case, score):
    """``score(weights, forecast, truth, climatology, members)`` of each lead's observed cells.

    NaN where there are none, or with missing forecasts.
    """
    out = []
    for k in range(2):
        all_fields = (case.share, case.mean, case.truth, case.climatology, case.members)
        fields = [a.isel(lead_time=k).values for a in all_fields]
        seen = np.isfinite(fields[2])
        known = seen.any() and np.isfinite(fields[-1][seen]).all()
        out.append(score(*(a[seen] for a in fields)) if known else np.nan)
    return np.array(out, float)


def weighted(function, case, forecast):
    return over_inits(function(forecast, case.truth, preserve_dims=KEEP, weights=case.area))


def crps(case):
    if case.members.sizes["number"] == 1:
        return weighted(scores.continuous.mae, case, case.mean)
    cells = scoringrules.crps_ensemble(case.truth.values, case.members.values, estimator="fair")
    expected = over_inits(case.truth.copy(data=cells).weighted(case.area).mean(SPACE))
    fair = scores.probability.crps_for_ensemble(
        case.members, case.truth, "number", method="fair", preserve_dims=KEEP, weights=case.area
    )
    if not case.lost.any():
        np.testing.assert_allclose(over_inits(fair), expected, rtol=1e-10)
    return expected


def energy_score(case):
    out = np.full(case.truth.shape[:2], np.nan)
    for i, k in np.ndindex(out.shape):
        fields = (case.share, case.truth, case.members)
        w, o, f = (a.isel(init_time=i, lead_time=k).values for a in fields)
        seen = np.isfinite(o)
        root = np.sqrt(w[seen])
        if seen.any() and f.shape[-1] > 1:
            out[i, k] = scoringrules.es_ensemble(o[seen] * root, f[seen].T * root, estimator="fair")
        elif seen.any():
            out[i, k] = np.linalg.norm((f[seen, 0] - o[seen]) * root)
    return over_inits(case.truth.isel(latitude=0, longitude=0, drop=True).copy(data=out))


def acc(case):
    def pooled(w, f, o, c, _):
        f, o = f - c, o - c
        return np.sum(w * f * o) / np.sqrt(np.sum(w * f**2) * np.sum(w * o**2))

    return by_lead(case, pooled)


def mean_series(case, field):
    """Means over the area where anything was observed."""
    return field.where(case.truth.notnull()).weighted(case.area).mean(SPACE, skipna=True)


def correlation(case):
    f, o = (mean_series(case, a - case.climatology) for a in (case.mean, case.truth))
    if case.truth.sizes["init_time"] == 1:
        return np.full(2, np.nan)
    return xskillscore.pearson_r(f, o, dim="init_time", skipna=True).values


def index_rmse(case):
    """Of the series of area means, by scores; initial times without observations have none."""
    f, o = (mean_series(case, a) for a in (case.mean, case.truth))
    return scores.continuous.rmse(f, o, preserve_dims="lead_time").values


def nmse(case):
    def ratio(w, f, o, c, _):
        squares = [sklearn.metrics.mean_squared_error(o, a, sample_weight=w) for a in (f, c)]
        return np.divide(*squares)

    return by_lead(case, ratio)


def spread_square(case):
    return by_lead(case, lambda w, f, o, c, m: np.average(m.var(axis=-1, ddof=1), weights=w))


def spread_skill(case):
    number = case.members.sizes["number"]
    square = weighted(scores.continuous.mse, case, case.mean)
    return np.sqrt((number + 1) / number * spread_square(case) / square)


def brier(case):
    def pooled(w, f, o, c, m):
        options = {"sample_weight": w, "labels": [False, True]}
        return sklearn.metrics.brier_score_loss(o > 0.5, (m > 0.5).mean(-1), **options)

    options = {"preserve_dims": KEEP, "weights": case.area, "fair_correction": False}
    options["event_threshold_operator"] = operator.gt
    library = scores.probability.brier_score_for_ensemble(
        case.members, case.truth, "number", 0.5, **options
    )
    expected = by_lead(case, pooled)
    if not case.lost.any():
        np.testing.assert_allclose(over_inits(library.isel(threshold=0)), expected, rtol=1e-10)
    return expected


def roc_area(case):
    def area(w, f, o, c, m):
        if (o > 0.5).all() or (o <= 0.5).all():
            return np.nan
        chance = (m > 0.5).mean(-1)
        arrays = [xr.DataArray(a, dims="x") for a in (chance, 1.0 * (o > 0.5), w)]
        library = scores.probability.roc_auc(*arrays[:2], weights=arrays[2])
        expected = sklearn.metrics.roc_auc_score(o > 0.5, chance, sample_weight=w)
        assert float(library) == pytest.approx(expected)
        return expected

    return by_lead(case, area)


def seeps(case):
    climate, share = climate_of(case), case.share
    january = [a.isel(time=0, drop=True) for a in (climate.dry_probability, climate.heavy)]
    cells = scores.categorical.seeps(
        case.members, case.truth, *january, dry_light_threshold=climate.dry, preserve_dims="all"
    ).mean("number")
    over = ["init_time", *SPACE]
    expected = (share * cells).sum(over) / (share * cells.notnull()).sum(over)
    masked = (january[0] < 0.1) | (january[0] > 0.85)
    lost = case.members.isnull().any("number") & case.truth.notnull() & ~masked
    return np.where(lost.any(over), np.nan, expected.transpose("lead_time"))


def fss(case):
    half = int(fss_of(case)[-1]) // 2
    rows, columns = (case.truth.sizes[d] for d in SPACE)
    chance = (case.members > 0.5).mean("number").values
    happened, seen = (case.truth > 0.5).values, case.truth.notnull().values
    error, total = np.zeros(chance.shape), np.zeros(chance.shape)
    for i, k, y, x in np.ndindex(chance.shape):
        across = np.arange(x - half, x + half + 1) % columns
        window = (i, k, *np.ix_(range(max(0, y - half), min(rows, y + half + 1)), across))
        if seen[i, k, y, x]:
            f, o = (a[window][seen[window]].mean() for a in (chance, happened))
            error[i, k, y, x], total[i, k, y, x] = (f - o) ** 2, f**2 + o**2
    share = case.share.values
    return 1 - (share * error).sum((0, 2, 3)) / (share * total).sum((0, 2, 3))


INDEPENDENT = {
    "rmse": lambda case: np.sqrt(weighted(scores.continuous.mse, case, case.mean)),
    "mae": lambda case: weighted(scores.continuous.mae, case, case.mean),
    "bias": lambda case: weighted(scores.continuous.additive_bias, case, case.mean),
    "acc": acc,
    "correlation": correlation,
    "index_rmse": index_rmse,
    "nmse": nmse,
    "crps": crps,
    "energy_score": energy_score,
    "spread": lambda case: np.sqrt(spread_square(case)),
    "spread_skill": spread_skill,
    "seeps": seeps,
    "brier": brier,
    "roc_area": roc_area,
    "fss": fss,
}


def test_every_metric_is_compared():
    assert set(INDEPENDENT) == {*METRICS, "fss"}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("metric", INDEPENDENT)
def test_scores_agree_with_independent_implementations(metric, name):
    case = case_of(name)
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")  # of the libraries, about empty means and 0 / 0
        expected = INDEPENDENT[metric](case)
    expected = np.where(case.lost, np.nan, np.where(np.isinf(expected), np.nan, expected))
    found = ours(case, fss_of(case) if metric == "fss" else metric)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    undefined = {
        "zero variance": {"acc", "correlation", "nmse", "roc_area"},
        "one member": {"spread", "spread_skill"},
        "one initial time": {"correlation"},
        "all missing": set(INDEPENDENT),
        "missing forecasts": set(INDEPENDENT),
    }
    finite = metric not in undefined.get(name, ())
    assert np.isfinite(expected).all() == finite, "the case must be what its name says"


@pytest.mark.parametrize("name", CASES)
def test_rank_histograms_agree_with_scores(name):
    case = case_of(name)
    members, weights = case.members.transpose(*KEEP, "number", *SPACE), region_weights(case.truth)
    ranks = rank_histogram(members, case.truth, weights=weights).isel(region=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = scores.probability.rank_histogram(
            case.members, case.truth, "number", preserve_dims="lead_time", weights=case.area
        )
    expected = expected.transpose("lead_time", "rank").values
    np.testing.assert_allclose(ranks, expected * expected.shape[1], rtol=1e-10)


@pytest.mark.parametrize("name", [n for n in CASES if n != "one cell"])
def test_zonal_spectra_agree_with_the_sum_over_waves(name):
    field = case_of(name).truth
    n = field.sizes["longitude"]
    wave = np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n)
    both = np.abs(field.values @ wave / n) ** 2  # waves k and n − k are the same
    power = [both[..., k] + (both[..., n - k] if 0 < k < n / 2 else 0) for k in range(n // 2 + 1)]
    area = np.cos(np.deg2rad(field["latitude"].values))
    expected = np.average(np.stack(power, axis=-1), axis=-2, weights=area)
    found = zonal_spectrum(field).isel(region=0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_fractions_skill_scores_agree_with_scores(size):
    random = np.random.default_rng(size)
    coords = {
        "init_time": days(6),
        "lead_time": [1, 2],
        "latitude": np.arange(9.0),
        "longitude": np.arange(12.0),
    }
    forecast, truth = (
        xr.DataArray(random.standard_normal((6, 2, 9, 12)), coords, tuple(coords)) for _ in range(2)
    )
    inner = xr.zeros_like(truth[0, 0].reset_coords(drop=True)).expand_dims(region=["inner"]).copy()
    edge = size // 2
    # scores takes whole windows only, and all alike
    inner[:, edge : 9 - edge, edge : 12 - edge] = 1.0
    more = fraction_sums(forecast, truth, event=EVENT, size=size, weights=inner)
    sums = xr.concat([score_sums(forecast, truth, weights=inner), more], "statistic").compute()
    value = find_metric(f"fss_{size}").compute(mean_over_inits(area_means(sums))).isel(region=0)
    options = {"window_size": (size, size), "spatial_dims": SPACE, "preserve_dims": ["lead_time"]}
    expected = scores.spatial.fss_2d(forecast, truth, event_threshold=0.5, **options)
    np.testing.assert_allclose(value, expected, rtol=1e-10)


@pytest.mark.parametrize("members", [1, 7])
def test_fractions_far_from_every_event_are_undefined(members):
    """Sums over neighbourhoods leave no rounding that could be taken for an event."""
    random = np.random.default_rng(members)
    west = xr.DataArray(np.arange(30) < 15, dims="longitude")
    coords = {
        "init_time": days(4),
        "lead_time": [1],
        "latitude": np.arange(20.0),
        "longitude": np.arange(30.0),
    }
    fields = (
        xr.DataArray(random.standard_normal((4, 1, 20, 30)), coords, tuple(coords))
        for _ in range(1 + members)
    )
    truth, *each = (field.where(west, -9.0) for field in fields)
    weights = region_weights(truth, ("near:0,19,0,13", "far:0,19,22,29"))
    forecast = xr.concat(each, "number")
    single = score_sums(forecast.mean("number"), truth, weights=weights)
    more = fraction_sums(forecast, truth, event=EVENT, size=3, weights=weights)
    sums = xr.concat([single, more], "statistic").compute()
    value = find_metric("fss_3").compute(mean_over_inits(area_means(sums)))
    assert np.isfinite(value.sel(region="near")).all()
    assert np.isnan(value.sel(region="far")).all()
