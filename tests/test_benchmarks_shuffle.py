"""The experiment on orders of training runs, tells a bad order, and measures what it says."""

import sys

import numpy as np
import pytest

from tests.scripts import load_benchmark


@pytest.fixture(scope="module")
def shuffle():
    return load_benchmark("shuffle")


@pytest.fixture(scope="module")
def windows(shuffle):
    return shuffle.find_windows(
        np.zeros(3000, np.int8),
        np.zeros(3000),
        which="train",
        spacing=shuffle.Spacing(shuffle.WINDOW),
    )


def test_the_script_runs_and_sequential_order_is_worse(shuffle, tmp_path, monkeypatch, capsys):
    out = tmp_path / "shuffle.md"
    monkeypatch.setattr(sys, "argv", ["shuffle.py", "--quick", "--out", str(out)])
    shuffle.main()
    assert "sequential" in capsys.readouterr().out
    head, _, *body = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in out.read_text().splitlines()
    )
    loss = {row[0] + row[1]: float(row[head.index("loss")]) for row in body}
    size = {row[0] + row[1]: float(row[head.index("n_eff of 32")]) for row in body}
    assert len(body) == len(shuffle.QUICK)
    assert loss["sequential1"] > 1.1 * loss["global shuffle1"]
    assert loss["block 128 × pool 46"] < 1.05 * loss["global shuffle6"]
    assert size["global shuffle1"] == pytest.approx(32, rel=0.1)
    assert size["sequential1"] < 3


def test_effective_batch_size_is_that_of_independent_draws(shuffle):
    rng = np.random.default_rng(0)
    states = rng.standard_normal((5000, shuffle.CELLS)).astype(np.float32)
    n, last = shuffle.BATCH, 5000 - shuffle.WINDOW + 1
    free = rng.integers(last, size=(4000, n))
    assert shuffle.effective_batch(states, free.ravel()) == pytest.approx(n, rel=0.05)
    # Batches of n / copies different windows have correlation (copies − 1) / (n − 1).
    for copies in (2, 8, n):
        few = np.repeat(free[:, : n // copies], copies, axis=1)
        rho = (copies - 1) / (n - 1)
        expected = n / (1 + (n - 1) * rho)
        assert shuffle.effective_batch(states, few.ravel()) == pytest.approx(expected, rel=0.05)


def test_all_orders_see_equally_many_windows_equally_often(shuffle, windows):
    num = 64 * len(windows)
    for draw in (*shuffle.QUICK, shuffle.Draw("block", 1, 128, 4)):
        starts = shuffle.draw_starts(draw, windows, 0, num)
        assert len(starts) == num
        seen = np.bincount(starts, minlength=len(windows))
        assert seen.max() < 90
        # Without a shuffle the windows that do not fill a batch are the same in every epoch.
        assert (seen < 40).sum() < (shuffle.BATCH if draw.order == "none" else 1)


def test_models_in_one_stack_train_as_if_alone(shuffle, windows):
    records = [shuffle.make_records(3000, seed) for seed in range(2)]
    num = 20 * shuffle.BATCH
    starts = np.stack(
        [
            [shuffle.draw_starts(draw, windows, seed, num) for seed in range(2)]
            for draw in shuffle.QUICK[1:3]
        ]
    )
    together = shuffle.train(records, starts, hidden=16)
    assert together.shape == (2, 2)
    for draw in range(2):
        alone = shuffle.train(records, starts[draw : draw + 1], hidden=16)
        np.testing.assert_allclose(alone[0], together[draw], rtol=1e-4)
    alone = shuffle.train(records[:1], starts[:, :1], hidden=16)
    np.testing.assert_allclose(alone[:, 0], together[:, 0], rtol=1e-4)


def test_the_record_has_weather_and_seasons(shuffle):
    train, validation = shuffle.make_records(4000, 0)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(train.var(0), 1, atol=1e-3)
    alike = {lag: np.mean(train[lag:] * train[:-lag]) for lag in (1, 20, shuffle.YEAR // 2)}
    assert alike[1] > 0.95  # neighbours nearly the same
    assert 0.2 < alike[20] < 0.8  # weather forgotten, season not
    assert alike[shuffle.YEAR // 2] < 0  # the opposite season
    assert abs(np.mean(train * validation)) < 0.7  # another member, not a copy


def test_losses_are_compared_by_pairs(shuffle):
    loss = np.array([[1.0, 3.0], [1.1, 3.6]])
    result = shuffle.Result(shuffle.QUICK[:2], loss, np.ones((2, 2)), 1, 10)
    mean, spread = result.excess(shuffle.FAIR)
    assert mean == pytest.approx(4.7 / 4 - 1)
    assert spread == pytest.approx(np.std([1.1, 1.2], ddof=1))


def test_reading_is_counted_in_whole_chunks(shuffle):
    assert shuffle.Draw("block", 6, 512, 16).read == 544 / 512
    assert shuffle.Draw("block", 6, 256, 16).read == 288 / 256
