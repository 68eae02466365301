"""Configuration: YAML and flags onto the tree, and what is refused with which words."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sciwm.config import (
    Config,
    ConfigError,
    DataConfig,
    ForecastConfig,
    ModelConfig,
    ObjectiveConfig,
    ProbeConfig,
    SkillConfig,
    SplitConfig,
    TrainConfig,
    dump_config,
    flatten_config,
    load_config,
)


def test_the_empty_text_is_the_defaults():
    assert load_config("") == Config()
    assert load_config("train:\n") == Config()


def test_a_file_and_its_text_are_the_same(tmp_path):
    text = "seed: 4\ntrain:\n  steps: 20\n"
    file = tmp_path / "small.yaml"
    file.write_text(text)
    expected = Config(seed=4, train=TrainConfig(steps=20))
    assert [load_config(source) for source in (file, str(file), text)] == [expected] * 3


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        load_config("nowhere.yaml")


def test_flags_win_over_yaml_and_later_over_earlier():
    flags = ["--train.steps=30", "--train.steps", "40", "--seed=7"]
    flags += ["--objective.lead_steps=[1,4]", "--data.store=a b.nc"]
    config = load_config("train: {steps: 20, clip: 2.0}\n", flags)
    assert (config.train.steps, config.train.clip, config.seed) == (40, 2.0, 7)
    assert config.objective.lead_steps == [1, 4]
    assert config.data.store == "a b.nc"


def test_dates_stay_text_in_yaml_and_flags():
    config = load_config(
        "data:\n  split:\n    train: [2000-01-01, 2003-12-31]\n",
        ["--data.split.test=[2004-01-01,2004-12-31]"],
    )
    assert config.data.split.train == ["2000-01-01", "2003-12-31"]
    assert config.data.split.test == ["2004-01-01", "2004-12-31"]


def test_several_stores_and_text_that_looks_like_a_number():
    assert load_config("", ["--data.store=[a.nc,b.nc]"]).data.store == ["a.nc", "b.nc"]
    assert load_config("", ["--data.store=2008"]).data.store == "2008"
    assert load_config("train: {learning_rate: 1e-4}\n").train.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("text", "flags", "message"),
    [
        (
            "train: {step: 3}",
            [],
            r"got key 'train\.step', expected one of steps, .*; did you mean 'train\.steps'\?",
        ),
        (
            "",
            ["--train.step=3"],
            r"'train\.step', expected one of train\.steps, .*; did you mean 'train\.steps'\?",
        ),
        (
            "steps: 3",
            [],
            r"got key 'steps', expected one of seed, data, .*; did you mean 'train\.steps'\?",
        ),
        ("", ["--steps=3"], r"did you mean 'train\.steps'\?"),
        ("", ["--model.dropuot=0.2"], r"did you mean 'model\.dropout'\?"),
        (
            "data: {split: {valid: [a, b]}}",
            [],
            r"got key 'data\.split\.valid', expected one of by, train, validation, test",
        ),
        ("qqqqqqqq: 3", [], r"got key 'qqqqqqqq', expected one of seed, .*, skill$"),
        ("1: 3", [], r"got key '1'"),
        ("train: {steps: many}", [], r"got train\.steps = 'many', expected int"),
        ("train: {steps: 1.5}", [], r"got train\.steps = 1\.5, expected int"),
        ("train:\n  steps:\n", [], r"got train\.steps without a value, expected int"),
        ("", ["--train.steps=many"], r"got train\.steps = 'many', expected int"),
        (
            "",
            ["--train.steps", "--seed=1"],
            r"got --train\.steps without a value, expected --train\.steps=int",
        ),
        ("", ["--train.steps"], r"got --train\.steps without a value"),
        ("", ["train.steps=3"], r"expected a flag such as --train\.steps=200"),
        ("seed: true", [], r"got seed = True, expected int"),
        ("data: {segments: 3}", [], r"got data\.segments = 3, expected bool"),
        ("data: {store: [a, 3]}", [], r"got data\.store = \['a', 3\], expected str or list\[str\]"),
        (
            "objective: {kind: sigred}",
            [],
            r"got objective\.kind = 'sigred', expected one of sigreg, ema, vicreg",
        ),
        (
            "objective: {lead_steps: [1, x]}",
            [],
            r"got objective\.lead_steps = \[1, 'x'\], expected list\[int\]",
        ),
        ("train: 3", [], r"got train = 3, expected a section with keys out of steps,"),
        ("- a\n- b\n", [], r"got list in the configuration, expected sections"),
        ("data: [\n", [], r"got invalid YAML in the configuration"),
        ("seed: 1\ntrain: {clip: 1.0}\nseed: 2\n", [], r"got key 'seed' a second time in line 3"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, flags, message):
    with pytest.raises(ConfigError, match=message):
        load_config(text + "\n", flags)


OUT_OF_RANGE = [
    (SplitConfig, {"train": ["2000-01-01"]}, r"data\.split\.train = .*two dates"),
    (SplitConfig, {"by": "step", "test": [10, 10]}, r"data\.split\.test = .*start < stop"),
    (SplitConfig, {"by": "step", "test": ["10", "20"]}, r"two positions"),
    (SplitConfig, {"by": "segment", "validation": [-1]}, r"segment numbers"),
    (DataConfig, {"store": ""}, r"data\.store = ''"),
    (DataConfig, {"harmonics": 0}, r"data\.harmonics = 0"),
    (ModelConfig, {"patch_size": [3]}, r"model\.patch_size = \[3\]"),
    (ModelConfig, {"patch_size": [3, 0]}, r"two positive counts"),
    (
        ModelConfig,
        {"num_heads": 5, "mixing": "both"},
        r"num_heads = 5, expected a divisor of model\.width = 96 and model\.encoder_width = 32",
    ),
    (ModelConfig, {"width": 0}, r"model\.width = 0"),
    (ModelConfig, {"reach": 0}, r"model\.reach = 0, expected a whole number of at least 1"),
    (ModelConfig, {"latent_dim": -1}, r"model\.latent_dim = -1, expected .* at least 0"),
    (ModelConfig, {"context_step": 0}, r"model\.context_step = 0"),
    (ModelConfig, {"whitening_floor": -0.1}, r"model\.whitening_floor = -0\.1"),
    (ModelConfig, {"history": 0}, r"model\.history = 0, expected a whole number of at least 1"),
    (ModelConfig, {"mlp_ratio": 0.0}, r"model\.mlp_ratio"),
    (ModelConfig, {"dropout": 1.0}, r"model\.dropout = 1\.0, expected a fraction in \[0, 1\)"),
    (ObjectiveConfig, {"rollout": 0}, r"objective\.rollout"),
    (ObjectiveConfig, {"rows": -1}, r"objective\.rows = -1, expected .* at least 0"),
    (ObjectiveConfig, {"input_noise": -0.1}, r"objective\.input_noise"),
    (ObjectiveConfig, {"ema_decay": 1.0}, r"objective\.ema_decay"),
    (ObjectiveConfig, {"mask_ratio": 1.0}, r"objective\.mask_ratio"),
    (ObjectiveConfig, {"curriculum": 1.5}, r"objective\.curriculum"),
    (ObjectiveConfig, {"lead_steps": []}, r"objective\.lead_steps"),
    (ObjectiveConfig, {"lead_steps": [1, 0]}, r"positive counts of time steps"),
    (TrainConfig, {"steps": 0}, r"train\.steps"),
    (TrainConfig, {"threads": -1}, r"train\.threads = -1, expected a whole number of at least 0"),
    (TrainConfig, {"learning_rate": 0.0}, r"train\.learning_rate"),
    (TrainConfig, {"learning_rate": float("nan")}, r"train\.learning_rate"),
    (TrainConfig, {"muon_rate": 0.0}, r"train\.muon_rate = 0\.0, expected a positive number"),
    (TrainConfig, {"weight_decay": -1.0}, r"train\.weight_decay"),
    (TrainConfig, {"warmup": 1.5}, r"train\.warmup"),
    (ProbeConfig, {"strengths": []}, r"probe\.strengths"),
    (ProbeConfig, {"strengths": [0.0]}, r"probe\.strengths"),
    (ProbeConfig, {"halo": -1}, r"probe\.halo"),
    (ForecastConfig, {"lead_times": []}, r"forecast\.lead_times"),
    (
        ForecastConfig,
        {"lead_times": ["1 dog"]},
        r"got lead time '1 dog', .* in forecast\.lead_times",
    ),
    (ForecastConfig, {"lead_times": ["0 days"]}, r"positive number of hours"),
    (ForecastConfig, {"lead_times": ["1 day", "1 month"]}, r"of one kind"),
    (ForecastConfig, {"init_every": 0}, r"forecast\.init_every"),
    (SkillConfig, {"metrics": []}, r"skill\.metrics"),
    (SkillConfig, {"lim_eofs": [0]}, r"skill\.lim_eofs"),
    (SkillConfig, {"resamples": 0}, r"skill\.resamples"),
]


@pytest.mark.parametrize(("section", "values", "message"), OUT_OF_RANGE)
def test_values_out_of_range_are_refused(section, values, message):
    with pytest.raises(ConfigError, match=message):
        section(**values)


def test_heads_matter_to_attention_alone():
    assert ModelConfig(num_heads=5).mixing == "local"
    with pytest.raises(ConfigError, match=r"model\.num_heads"):
        ModelConfig(num_heads=5, mixing="global")


def test_every_section_refuses_something():
    sections = {entry.type for entry in fields(Config) if is_dataclass(entry.type)} | {SplitConfig}
    assert {section for section, _, _ in OUT_OF_RANGE} == sections


def test_range_errors_reach_through_loading():
    with pytest.raises(ConfigError, match=r"^got model\.dropout = 2\.0, expected a fraction"):
        load_config("", ["--model.dropout=2.0"])


finite = st.floats(min_value=1e-12, max_value=1e12)
words = st.text(
    st.sampled_from("azAZ09 _-./:,#&*!|>'\"%@`[]{}?=~\\éß°µ水🌍"), min_size=1, max_size=12
)


@settings(max_examples=25)
@given(
    store=words | st.lists(words, min_size=1, max_size=4),
    variables=st.lists(words, max_size=4),
    rate=finite,
    strengths=st.lists(finite, min_size=1, max_size=4),
    leads=st.lists(st.integers(1, 10**6), min_size=1, max_size=4),
    precision=words
    | st.sampled_from(["16", "yes", "null", "1e3", "2000-01-01", "~", "- a", "a: b"]),
)
def test_dumping_and_loading_is_the_identity(store, variables, rate, strengths, leads, precision):
    config = Config(
        data=DataConfig(
            store=store, variables=variables, split=SplitConfig(train=["2000-01-01", "2001-01-01"])
        ),
        objective=ObjectiveConfig(lead_steps=leads),
        train=TrainConfig(learning_rate=rate, precision=precision),
        probe=ProbeConfig(strengths=strengths),
    )
    assert load_config(dump_config(config)) == config


def test_flattened_keys_are_the_flags():
    flat = flatten_config(Config())
    assert flat["data.split.by"] == "time"
    more = flat["train.steps"] + 1
    assert load_config("", [f"--train.steps={more}"]).train.steps == more
    changed = flatten_config(replace(Config(), train=TrainConfig(steps=3)))
    assert [key for key in flat if changed[key] != flat[key]] == ["train.steps"]


CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configurations_that_come_with_sciwm_load(path):
    assert load_config(dump_config(load_config(path))) == load_config(path)
