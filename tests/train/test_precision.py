"""Which numbers a training multiplies: chosen by the processor, or taken from the configuration."""

import lightning as L
import pytest
import torch

from sciwm.config import TrainConfig
from sciwm.train.precision import resolve_precision


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("onednn", [True, False])
def test_a_processor_needs_the_instructions_and_onednn(monkeypatch, native, onednn):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native, raising=False)
    monkeypatch.setattr(
        torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn, raising=False
    )
    expected = "bf16-mixed" if native and onednn else "32-true"
    assert resolve_precision("auto", "cpu") == expected


@pytest.mark.parametrize("lost", ["_is_avx512_bf16_supported", "_is_mkldnn_bf16_supported"])
def test_a_release_that_cannot_tell_keeps_float32(monkeypatch, lost):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True, raising=False)
    assert resolve_precision("auto", "cpu") == "bf16-mixed"
    monkeypatch.delattr(torch.cpu if "avx" in lost else torch.ops.mkldnn, lost)
    if "avx" not in lost:
        # Looked up anew, torch would find it again.
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert resolve_precision("auto", "cpu") == "32-true"


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_must_not_emulate(monkeypatch, native):
    asked = []

    def is_supported(including_emulation=True):
        asked.append(including_emulation)
        return native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert resolve_precision("auto", "cuda") == ("bf16-mixed" if native else "32-true")
    assert asked == [False]


@pytest.mark.parametrize("device", ["mps", "xpu", "tpu"])
def test_other_devices_keep_float32(device):
    assert resolve_precision(TrainConfig().precision, device) == "32-true"


@pytest.mark.parametrize("flag", ["32-true", "bf16-mixed", "32"])
def test_what_is_asked_is_what_lightning_gets(flag, tmp_path):
    assert resolve_precision(flag, "cpu") == flag
    trainer = L.Trainer(
        accelerator="cpu", precision=flag, logger=False, default_root_dir=tmp_path, barebones=True
    )
    assert trainer.precision.startswith(flag)


@pytest.mark.parametrize("flag", ["16", "16-mixed", "16-true", "transformer-engine-float16"])
def test_float16_is_refused_with_the_reason(flag):
    message = rf"got train\.precision = '{flag}', expected bf16-mixed or 32-true: the scaled"
    with pytest.raises(ValueError, match=message):
        resolve_precision(flag, "cuda")


@pytest.mark.parametrize("flag", ["fp32", "bfloat16", "", "AUTO", "bf16-true", "64-true"])
def test_what_lightning_does_not_know_is_refused(flag):
    message = rf"got train\.precision = '{flag}', expected auto or one of 32-true, bf16-mixed"
    with pytest.raises(ValueError, match=message):
        resolve_precision(flag, "cpu")
