"""From what the engine says of an utterance to its words, by the decoder of a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from asr import DECODERS
from asr.decoding import Hypothesis
from asr.decoding.greedy import greedy_decode
from asr.decoding.words import words_of, words_without_steps
from asr.transcript import Word

# The searches are imported where they are needed, so that `--help` does not wait for what they compile.
if TYPE_CHECKING:
    from asr.bundle import Bundle
    from asr.engine import Encoding, Engine

Decode = Callable[["Encoding"], tuple[list[Word], tuple[str, ...]]]


def decode_with(
    bundle: Bundle,
    engine: Engine,
    name: str | None,
    hotwords: Sequence[str] = (),
    n_best: int = 1,
    draft: bool = False,
) -> Decode:
    """The function from an encoding to the words, in seconds from the utterance's start, and other texts.

    Args:
      name: one of `asr.DECODERS`. None takes "joint" if the model has an attention decoder, else "beam" if it
        has a language model, there are hot words or several texts are wanted, else "greedy".
      hotwords: names and terms to expect.
      n_best: texts to give, that of the words included.
      draft: whether speed counts more than a few errors: "beam" then keeps `DRAFT_BEAM` prefixes.

    Raises ValueError where the model has no such decoder, or the decoder knows no hot words or other texts.
    """
    searching = bool(hotwords) or n_best > 1 or bundle.has_language_model
    name = name or ("joint" if bundle.vocabulary else "beam" if searching else "greedy")
    if name not in DECODERS:
        raise ValueError(f"no decoder {name!r}: choose one of {', '.join(DECODERS)}")
    if n_best < 1:
        raise ValueError(f"n_best must be at least 1, not {n_best}")
    if name == "joint" and bundle.vocabulary is None:
        raise ValueError(f"{bundle.name} has no attention decoder: choose the beam decoder")
    if name != "joint" and not bundle.has_ctc:
        raise ValueError(f"{bundle.name} has only an attention decoder: choose the joint decoder")
    if hotwords and not bundle.has_ctc:
        raise ValueError(f"{bundle.name} has no CTC head, which finds hot words")
    if name == "greedy" and hotwords:
        raise ValueError("the greedy decoder knows no hot words: choose the beam decoder")
    if name == "greedy" and n_best > 1:
        raise ValueError("the greedy decoder has only one text: choose the beam decoder")
    hypotheses = _hypotheses_with(bundle, engine, name, hotwords, draft)
    calibration = bundle.config.get("confidence", {}).get(name)

    def decode(encoding: Encoding) -> tuple[list[Word], tuple[str, ...]]:
        best, *others = hypotheses(encoding, n_best)
        if encoding.log_probs is None:
            words = words_without_steps(best, encoding.seconds)
        else:
            words = words_of(best, encoding.log_probs, bundle.tokenizer, bundle.step_seconds, calibration)
        return words, tuple(other.text for other in others)

    return decode


def _hypotheses_with(
    bundle: Bundle, engine: Engine, name: str, hotwords: Sequence[str], draft: bool
) -> Callable[[Encoding, int], list[Hypothesis]]:
    """The function from an encoding and a number to so many hypotheses, the best first."""
    if name == "greedy":
        return lambda encoding, _: [greedy_decode(encoding.log_probs, bundle.tokenizer)]
    from asr.decoding.beam import DRAFT_BEAM, BeamDecoder

    ctc = BeamDecoder.from_bundle(bundle, hotwords) if bundle.has_ctc else None
    if name == "beam":
        beam = DRAFT_BEAM if draft else None
        return lambda encoding, n_best: ctc.decode(encoding.log_probs, n_best, beam)
    from asr.decoding.joint import JointDecoder

    joint = JointDecoder(engine.step, bundle.vocabulary, bundle.tokenizer, ctc, bundle.step_seconds, hotwords)
    return lambda encoding, n_best: joint.decode(encoding.log_probs, encoding.memory, n_best)
