"""The benchmark of training steps and rollouts runs, and compares what is alike."""

import sys

import pytest
import torch

from tests.scripts import load_benchmark


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark("train_step")


def test_the_script_runs(benchmark, tmp_path, monkeypatch, capsys):
    out = tmp_path / "table.md"
    threads = torch.get_num_threads()
    arguments = f"--sizes quick --rounds 2 --repeat 1 --threads {threads} --out".split()
    monkeypatch.setattr(sys, "argv", ["train_step.py", *arguments, str(out)])
    benchmark.main()
    rows = [line for line in out.read_text().splitlines() if line.startswith("| ")]
    names = [row.split("|")[1].strip() for row in rows]
    assert [n for n in names if n.startswith(("JEPA", "plain"))] == [
        "JEPA, 50% of the context's tokens dropped",
        "JEPA, every token",
        "plain, dropout 0.1",
        "plain, dropout 0",
    ]
    assert "pixels, both states encoded again" in names
    assert "GFLOP/s" in capsys.readouterr().out


def test_both_steps_do_the_same_work(benchmark):
    """The plain network has the JEPA's matrices, but for the modulation by conditions.

    Dropping tokens saves arithmetic.
    """
    size = benchmark.SIZES["quick"]
    ways = benchmark.Ways(size, torch.device("cpu"), "32")
    dropped, every, plain, _ = (ways.flops(name) for name in ways.steps)
    assert dropped < 0.85 * every
    assert every == pytest.approx(plain, rel=0.15)
    for name in ways.steps:
        before = [p.clone() for p in ways.networks[name].parameters()]
        ways.step(name)
        pairs = zip(before, ways.networks[name].parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs)


def test_rollouts_start_alike(benchmark):
    """At the first lead nothing has been encoded again.

    Later they differ, because fields hold less than latents.
    """
    rollouts = benchmark.Rollouts(benchmark.SIZES["quick"], torch.device("cpu"), "32")
    for parameter in rollouts.twin.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    latent, last, both = (way() for way in rollouts.ways.values())
    assert latent.shape == (4, len(benchmark.LEADS), benchmark.SIZES["quick"].count, 8)
    torch.testing.assert_close(latent[:, 0], last[:, 0])
    torch.testing.assert_close(last[:, 0], both[:, 0])
    assert not torch.allclose(latent[:, 1], both[:, 1], atol=1e-3)
