"""The benchmark of bfloat16 and of the optimiser runs, and compares what is alike."""

import sys

import pytest
import torch

from tests.scripts import load_benchmark


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark("arithmetic")


def test_the_script_runs(benchmark, tmp_path, monkeypatch, capsys):
    out = tmp_path / "table.md"
    threads = torch.get_num_threads()
    arguments = f"--small --rounds 2 --threads {threads} --out".split()
    monkeypatch.setattr(sys, "argv", ["arithmetic.py", *arguments, str(out)])
    benchmark.main()
    assert out.read_text() == capsys.readouterr().out
    rows = [line.split(" | ") for line in out.read_text().splitlines() if "×" in line]
    assert [len(row) for row in rows[:4]] == [4] * 4
    assert rows[4][0] == "| torch.optim.AdamW, fused"
    assert rows[4][2] == "1.00× [1.00, 1.00] |"
    assert "auto: " in out.read_text()


def test_both_precisions_do_the_same_work(benchmark):
    torch.manual_seed(0)
    for work in benchmark.works(small=True).values():
        with torch.autocast("cpu", torch.bfloat16):
            half = work()
        single = work()
        assert single.dtype == torch.float32
        assert not torch.equal(half.float(), single)
        torch.testing.assert_close(half.float(), single, rtol=0.05, atol=0.3)


def test_all_of_ours_is_adamw_until_matrices_are_muon_s(benchmark):
    ways = benchmark.optimizers(small=True)
    for step in ways.values():
        step()
    plain, adamw, muon = (step.__self__ for step in list(ways.values())[:3])

    def weights(optimizer):
        return [p for group in optimizer.param_groups for p in group["params"]]

    assert [p.shape for p in weights(plain)] == [p.shape for p in weights(adamw)]
    assert [p.shape for p in weights(adamw)] == [p.shape for p in weights(muon)]
    same = [torch.allclose(a, b) for a, b in zip(weights(plain), weights(adamw), strict=True)]
    assert all(same)
    pairs = zip(weights(plain), weights(muon), strict=True)
    assert [torch.allclose(a, b) for a, b in pairs] == [False] * 3 + [True] * 5
