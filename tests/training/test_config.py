"""training/config.py: what a YAML file may say, and how wrong ones are refused."""

from pathlib import Path

import pytest

from training.config import ConfigError, load_config

CONFIGS = Path(__file__).parents[2] / "training" / "configs"

SMALLEST = """
output: runs/tiny
model: {encoders: [{type: recurrent, width: 8}]}
data: {train: [train.jsonl]}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(SMALLEST)
    return path


def refusal(*arguments) -> str:
    with pytest.raises(ConfigError) as error:
        load_config(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path):
    assert load_config(path).model.encoders


def test_defaults(config):
    run = load_config(config)
    assert run.output == Path("runs/tiny")
    assert run.data.train == [Path("train.jsonl")]
    assert run.optimizer.multipliers == {}
    assert run.data.augmentation.noise == 0


def test_overrides(config):
    run = load_config(
        config,
        ["optimizer.learning_rate=1e-4", "data.augmentation.speed=0.5", "epochs=3", "data.train=[a, b]"],
    )
    assert run.optimizer.learning_rate == 1e-4
    assert run.data.augmentation.speed == 0.5
    assert run.epochs == 3
    assert run.data.train == [Path("a"), Path("b")]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("epoch=3", "epoch: Extra inputs"),
        ("optimizer.lr=1", "optimizer.lr: Extra inputs"),
        ("epochs=0", "epochs: Input should be greater than 0"),
        ("epochs=many", "epochs: Input should be a valid integer"),
        ("data.augmentation.noise=0.5", "data: Value error, augmentation.noise is above 0"),
        ("data.augmentation.noise=1.5", "data.augmentation.noise: Input should be less than"),
        ("optimizer.multipliers={encoder_0: -1}", "optimizer.multipliers.encoder_0"),
        ("objectives.distillation={weight: 1}", "objectives.distillation.teacher: Field required"),
        (
            "objectives.consistency.weight=-1",
            "objectives.consistency.weight: Input should be greater than or equal to 0",
        ),
        ("objectives.consistency={}", "Value error, objectives.consistency needs model.spec_augment"),
        ("objectives.attention={}", "model.decoder and objectives.attention go together"),
        (
            "model.decoder={type: transformer}",
            "model.decoder and objectives.attention go together",
        ),
        ("initialize={runs/a: 0}", "initialize.runs/a: Input should be greater than 0"),
        ("initialize=5", "initialize.5.[key]: Input is not a valid path"),
        ("epochs", "write key=value"),
        ("epochs.first=1", "epochs is no section"),
        ("epochs=[", "epochs=[': not YAML"),
    ],
)
def test_wrong_overrides(config, override, key):
    config.write_text(SMALLEST + "epochs: 2\n")
    assert key in refusal(config, [override])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "output: Field required"),
        ("output: [", "not YAML"),
        ("just words", "a config is a mapping"),
        (SMALLEST + "seeds: 1", "seeds: Extra inputs"),
        (SMALLEST + "seed: !!python/object/apply:os.getpid []", "not YAML"),
    ],
)
def test_wrong_files(config, content, message):
    config.write_text(content)
    message_shown = refusal(config)
    assert message_shown.startswith(f"{config}: ")
    assert message in message_shown


@pytest.mark.parametrize(
    ("value", "sources"),
    [
        ("runs/a", {"runs/a": 1.0}),
        ("[runs/a, runs/b]", {"runs/a": 1.0, "runs/b": 1.0}),
        ("{runs/a: 0.7, runs/b: 0.3}", {"runs/a": 0.7, "runs/b": 0.3}),
        ("null", {}),
    ],
)
def test_sources_and_their_weights(config, value, sources):
    run = load_config(config, [f"initialize={value}"])
    assert run.initialize == {Path(path): weight for path, weight in sources.items()}
    config.write_text(run.model_dump_json())  # as in a run folder
    assert load_config(config) == run


def test_frozen_encoders_are_below_the_decoder(config):
    joint = ["model.decoder={type: transformer, encoders: 1}", "objectives.attention={}"]
    encoders = "model.encoders=[{type: recurrent}, {type: recurrent}]"
    assert load_config(config, [*joint, encoders, "frozen_encoders=1"]).frozen_encoders == 1
    message = refusal(config, [*joint, encoders, "frozen_encoders=2"])
    assert "frozen_encoders must all be below model.decoder" in message


def test_missing_file(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.yaml")


def test_a_run_cannot_be_changed_afterwards(config):
    with pytest.raises(ValueError, match="frozen"):
        load_config(config).epochs = 5
