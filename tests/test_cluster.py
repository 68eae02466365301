"""Where Dask works: what is refused, and what is left of a cluster when the command is over."""

import sys
import time

import dask
import numpy as np
import pytest
import xarray as xr

import sciwm.cluster as module
from sciwm.cli import main
from sciwm.cluster import dask_workers
from sciwm.store.prepare import open_training_store
from sciwm.testing import small_climate

distributed = pytest.importorskip("distributed")

CONFIG = """
data:
  store: STORE
  harmonics: 1
  split: {train: [Y0, Y1], validation: [Y2-01, Y2-06], test: [Y2-07, Y2-12]}
forecast: {lead_times: [1 day]}
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ds = small_climate(years=3).load()
    years = sorted({str(y) for y in ds.time.dt.year.values})
    ds.to_netcdf(tmp_path / "a.nc")
    text = CONFIG.replace("STORE", str(tmp_path / "a.nc"))
    for number, year in enumerate(years[:3]):
        text = text.replace(f"Y{number}", year)
    (tmp_path / "mine.yaml").write_text(text)
    return "mine.yaml"


def test_threads_without_a_cluster():
    with dask_workers() as client:
        assert client is None


def test_both_a_scheduler_and_workers_are_refused():
    with (
        pytest.raises(ValueError, match="expected one of them"),
        dask_workers(scheduler="tcp://h:1", workers=2),
    ):
        pass


def test_without_distributed_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"pip install 'sciwm\[cloud\]'"), dask_workers(workers=1):
        pass


def test_an_address_where_nobody_answers_is_named_soon(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 1.0)
    start = time.monotonic()
    silent = r"scheduler 'tcp://127.0.0.1:1', which does not answer"
    with (
        pytest.raises(ConnectionError, match=silent),
        dask_workers(scheduler="tcp://127.0.0.1:1"),
    ):
        pass
    assert time.monotonic() - start < 8
    assert int(dask.delayed(abs)(-1).compute()) == 1  # Dask does not look for the cluster any more


def test_a_wrong_address_is_one_message(config, capsys):
    assert main(["prepare", config, "--scheduler", "nonsense"]) == 2
    assert "got scheduler 'nonsense', which does not answer" in capsys.readouterr().err


def test_a_scheduler_without_workers_is_refused(monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.5)
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        pytest.raises(ConnectionError, match="without workers"),
        dask_workers(scheduler=cluster.scheduler_address),
    ):
        pass


def test_the_verb_prepares_on_a_cluster_and_lets_go_of_it(config, capsys):
    assert main(["prepare", config, "--out", "threads"]) == 0
    settings = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(processes=False, **settings) as cluster:
        there = ["--out", "cluster", "--scheduler", cluster.scheduler_address]
        assert main(["prepare", config, *there]) == 0
        assert "workers: 2, dashboard: http://" in capsys.readouterr().out
        assert set(cluster.scheduler.clients) <= {"fire-and-forget"}
    stores = [open_training_store(f"{out}/train.zarr").load() for out in ("threads", "cluster")]
    xr.testing.assert_identical(*stores)
    assert np.isfinite(stores[0].state.values).all()


def test_ctrl_c_ends_the_workers(config, monkeypatch, capsys):
    import sciwm.run.verbs as verbs

    clusters = []

    class Cluster(distributed.LocalCluster):
        def __init__(self, **settings):
            super().__init__(processes=False, **settings)
            clusters.append(self)

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(distributed, "LocalCluster", Cluster)
    monkeypatch.setattr(verbs, "write_training_store", interrupt)
    assert main(["prepare", config, "--workers", "2"]) == 130
    assert clusters[0].status == distributed.core.Status.closed
    assert dask.config.get("scheduler", None) is None
    with pytest.raises(ValueError, match="No client"):
        distributed.default_client()
