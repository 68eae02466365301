"""The benchmark of training steps and rollouts runs, and compares what is alike."""

import sys

import pytest
import torch

from tests.scripts import load_benchmark
from tests.worlds import open_gates


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
    expected = [f"{who}, {how}" for how in ("neighbours", "attention") for who in ("JEPA", "plain")]
    assert [n for n in names if n.startswith(("JEPA", "plain"))] == expected
    assert "pixels, both states encoded again" in names
    assert "GFLOP/s" in capsys.readouterr().out


def test_both_steps_do_the_same_work(benchmark):
    """The plain network has the matrices of the JEPA, and learns from the same windows."""
    ways = benchmark.Ways(benchmark.SIZES["quick"], torch.device("cpu"), "32")
    for name, reference in ways.references.items():
        assert ways.flops(name) == pytest.approx(ways.flops(reference), rel=0.15)
        before = [p.clone() for p in ways.networks[name].parameters()]
        ways.step(name)
        pairs = zip(before, ways.networks[name].parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs)


@torch.no_grad()
def test_both_blocks_are_the_same(benchmark):
    """With the same weights they give the same."""
    size = benchmark.SIZES["quick"]
    place = benchmark.network_of(size, "local").encoder.blocks[0]
    plain = benchmark.PlainBlock(size, size.encoder_width, "local")
    torch.nn.init.normal_(plain.down.weight)
    weights = {k.replace("mix.", "mix.convolution."): v for k, v in plain.state_dict().items()}
    place.load_state_dict(weights)
    x = torch.randn(3, size.count, size.encoder_width)
    torch.testing.assert_close(place(x), plain(x), rtol=1e-4, atol=1e-5)


def test_rollouts_start_alike(benchmark):
    """At the first lead nothing has been encoded again.

    Later they differ, because fields hold less than latents.
    """
    rollouts = benchmark.Rollouts(benchmark.SIZES["quick"], torch.device("cpu"), "32")
    open_gates(rollouts.twin)
    latent, last, both = (way() for way in rollouts.ways.values())
    assert latent.shape == (4, len(benchmark.LEADS), benchmark.SIZES["quick"].count, 8)
    torch.testing.assert_close(latent[:, 0], last[:, 0])
    torch.testing.assert_close(last[:, 0], both[:, 0])
    assert not torch.allclose(latent[:, 1], both[:, 1], atol=1e-3)
