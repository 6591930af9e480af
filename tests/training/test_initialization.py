"""training/initialization.py: what a run takes over from another model, and the tokenizer that it keeps."""

from pathlib import Path

import keras
import numpy as np
import pytest

from asr.bundle import Bundle, BundleError, save_bundle, store_in_8_bits, weights_path
from asr.model import SpeechModel
from asr.tokenizer import Tokenizer
from asr.vocabulary import Vocabulary
from tests.training.toy import VOCABULARY
from training.callbacks import CHECKPOINT
from training.config import ConfigError, RunConfig
from training.initialization import initialize, source_bundles, tokenizer_of, vocabulary_of

ENCODERS = [
    {"type": "recurrent", "width": 4, "layers": 1, "stack": 2},
    {"type": "recurrent", "width": 4, "layers": 1, "stack": 2},
]
ENGLISH = Tokenizer.characters()
TURNED = Tokenizer.characters(alphabet=ENGLISH.alphabet[::-1])  # as many units, in another order
SHORT = Tokenizer.characters(alphabet="abc")


def network(tokenizer: Tokenizer = ENGLISH, encoders: list = ENCODERS, seed: int = 0) -> SpeechModel:
    keras.utils.set_random_seed(seed)
    return SpeechModel(tokenizer.size, encoders, {"mels": 8}).build_for()


def config(**options) -> RunConfig:
    return RunConfig(output="run", model={"encoders": ENCODERS}, data={"train": ["train.jsonl"]}, **options)


def start(network: SpeechModel, tokenizer: Tokenizer, sources, vocabulary=None) -> None:
    initialize(network, tokenizer, vocabulary, source_bundles(config(initialize=sources)))


def values(layer) -> list[np.ndarray]:
    return [weight.numpy() for weight in layer.weights]


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


@pytest.fixture
def source(tmp_path) -> tuple[Path, SpeechModel]:
    """A bundle, and the network that it was made of."""
    model = network(seed=1)
    for variable in model.weights:  # as float16 holds them
        variable.assign(variable.numpy().astype("float16").astype("float32"))
    return save_bundle(tmp_path / "source", model, ENGLISH), model


def test_all_weights_are_taken_over(source, capsys):
    folder, model = source
    other = network(seed=2)
    assert not same(values(other), values(model))
    start(other, ENGLISH, folder)
    assert same(values(other), values(model))
    assert capsys.readouterr().err == ""


def test_a_run_folder_stands_for_its_bundle(source, tmp_path):
    _, model = source
    save_bundle(tmp_path / "run" / "bundle", model, ENGLISH)
    other = network(seed=2)
    start(other, ENGLISH, tmp_path / "run")
    assert same(values(other), values(model))


@pytest.mark.parametrize("tokenizer", [TURNED, SHORT], ids=["as many units", "fewer units"])
def test_the_head_is_taken_over_for_the_same_units_only(source, capsys, tokenizer):
    folder, model = source
    other = network(tokenizer, seed=2)
    head = values(other.output_layer)
    start(other, tokenizer, folder)
    for ours, theirs in zip(other.encoders, model.encoders, strict=True):
        assert same(values(ours), values(theirs))
    assert same(values(other.output_layer), head)
    assert "no output/kernel for this model" in capsys.readouterr().err


def test_weights_in_8_bits_are_taken_over(source):
    folder, model = source
    store_in_8_bits(Bundle.load(folder))
    other = network(seed=2)
    start(other, ENGLISH, folder)
    for found, expected in zip(other.weights, model.weights, strict=True):
        np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())


def test_parts_that_do_not_fit_start_from_chance_and_are_named(source, capsys):
    folder, model = source
    other = network(encoders=[ENCODERS[0], {**ENCODERS[1], "width": 5}], seed=2)
    second = values(other.encoders[1])
    start(other, ENGLISH, folder)
    assert same(values(other.encoders[0]), values(model.encoders[0]))
    assert same(values(other.encoders[1]), second)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(second) + 1  # and the output's kernel, which is wider
    assert all("encoder_1/" in line or "output/kernel" in line for line in lines)


def test_a_model_of_which_nothing_fits_is_refused(source):
    folder, _ = source
    other = network(SHORT, [{"type": "recurrent", "width": 5, "layers": 1, "stack": 4}])
    with pytest.raises(ConfigError, match="holds no weight of this model: compare the encoders"):
        start(other, SHORT, folder)


def test_missing_sources_are_refused_in_one_line(source, tmp_path):
    folder, _ = source
    weights_path(folder).unlink()
    for path in (folder, tmp_path / "none"):
        with pytest.raises(BundleError) as found:
            start(network(), ENGLISH, path)
        assert str(path) in str(found.value) and "\n" not in str(found.value)
    with pytest.raises(BundleError, match=r"none\.safetensors: no such model; give a folder"):
        start(network(), ENGLISH, tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "options", [{"language": "ru"}, {"language": "ru", "units": "bpe", "size": 20}], ids=["letters", "BPE"]
)
def test_a_resumed_run_keeps_its_tokenizer(tmp_path, options):
    run = config(tokenizer=options)
    first = tokenizer_of(run, tmp_path, ["аб вг", "аб аб вг"])
    assert first == Tokenizer.load(tmp_path / "tokenizer.json")
    assert set(first.alphabet) == set("'абвг")
    # Nothing was trained yet: texts that have changed make another one.
    second = tokenizer_of(run, tmp_path, ["аб вгд", "где где"])
    assert set(second.alphabet) == set("'абвгде")
    (tmp_path / CHECKPOINT).touch()
    assert tokenizer_of(run, tmp_path, ["аб вг", "жз"]) == second
    assert Tokenizer.load(tmp_path / "tokenizer.json") == second


def test_without_options_the_tokenizer_is_that_of_the_source(tmp_path):
    assert tokenizer_of(config(), tmp_path, ["any"]) == ENGLISH
    source = save_bundle(tmp_path / "source", network(SHORT), SHORT)
    assert tokenizer_of(config(initialize=source), tmp_path, ["any"]) == SHORT


def test_variables_of_several_sources_are_averaged(tmp_path):
    parts = {"whole": ENCODERS, "half": [ENCODERS[0], {**ENCODERS[1], "width": 5}]}
    models = {name: network(encoders=part, seed=i) for i, (name, part) in enumerate(parts.items())}
    for name, model in models.items():
        for variable in model.weights:
            variable.assign(variable.numpy().astype("float16").astype("float32"))
        save_bundle(tmp_path / name, model, ENGLISH)
    other = network(seed=3)
    pairs = list(zip(*(values(model.encoders[0]) for model in models.values()), strict=True))
    for weights, first in (({"whole": 3.0, "half": 1.0}, 0.75), (["whole", "half"], 0.5)):
        paths = [tmp_path / name for name in weights]
        sources = dict(zip(paths, weights.values(), strict=True)) if isinstance(weights, dict) else paths
        start(other, ENGLISH, sources)
        for found, (one, two) in zip(values(other.encoders[0]), pairs, strict=True):
            np.testing.assert_allclose(found, first * one + (1 - first) * two, atol=1e-6)
        assert same(values(other.encoders[1]), values(models["whole"].encoders[1]))  # the only one that fits


DECODER = {"type": "transformer", "width": 4, "layers": 1, "heads": 1, "positions": 32}
TURNED_TOKENS = Vocabulary(VOCABULARY.tokens[::-1], VOCABULARY.marks)


def joint(units: int | None, seed: int) -> SpeechModel:
    keras.utils.set_random_seed(seed)
    decoder = {**DECODER, "vocabulary": VOCABULARY.size}
    return SpeechModel(units, [{**ENCODERS[0], "bidirectional": False}], {"mels": 8}, decoder).build_for()


@pytest.fixture
def whisper(tmp_path) -> tuple[Path, SpeechModel]:
    """A decoder without a CTC head."""
    model = joint(None, seed=4)
    for variable in model.weights:
        variable.assign(variable.numpy().astype("float16").astype("float32"))
    return save_bundle(tmp_path / "whisper", model, ENGLISH, VOCABULARY), model


@pytest.mark.parametrize("vocabulary", [VOCABULARY, TURNED_TOKENS], ids=["same", "other"])
def test_tokens_are_taken_over_for_the_same_vocabulary_only(whisper, capsys, vocabulary):
    folder, model = whisper
    other = joint(ENGLISH.size, seed=5)
    tokens = values(other.decoder.tokens)
    start(other, ENGLISH, folder, vocabulary)
    assert same(values(other.decoder.blocks[0]), values(model.decoder.blocks[0]))
    is_same = vocabulary == VOCABULARY
    assert same(values(other.decoder.tokens), values(model.decoder.tokens) if is_same else tokens)
    assert ("no decoder/tokens/embeddings for this model" in capsys.readouterr().err) != is_same


def test_the_vocabulary_is_that_of_the_last_source_that_has_one(whisper, source):
    (folder, _), (without, _) = whisper, source

    def wanted(**options) -> RunConfig:
        model = {"encoders": ENCODERS, "decoder": DECODER}
        options = {"model": model, "objectives": {"attention": {}}} | options
        return RunConfig.model_validate(config().model_dump() | options)

    assert vocabulary_of(wanted(initialize=[folder, without]), []) == VOCABULARY
    assert vocabulary_of(config(initialize=folder), []) is None  # of a model without a decoder
    with pytest.raises(ConfigError, match="decoder: give the size of its vocabulary"):
        vocabulary_of(wanted(initialize=without), [])
    own = wanted(initialize=folder, model={"encoders": ENCODERS, "decoder": {**DECODER, "vocabulary": 262}})
    learnt = vocabulary_of(own, ["Hold on, Otto.", "Hold on."])
    assert learnt.size == 262 and b"Hold" in b"".join(learnt.tokens[256:])


def test_the_units_are_those_of_a_source_with_a_ctc_head(whisper, tmp_path):
    source = save_bundle(tmp_path / "short", network(SHORT), SHORT)
    for order in ([source, whisper[0]], [whisper[0], source]):
        assert tokenizer_of(config(initialize=order), tmp_path, ["any"]) == SHORT
