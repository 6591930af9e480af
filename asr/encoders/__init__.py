"""Encoders: layers that map x [batch, frames, features], lengths [batch] to y [batch, steps, width], lengths.

Each has `subsampling`, the number of frames per step, and can be stacked on any other.
"""

from collections.abc import Mapping

from asr.encoders.conformer import ConformerEncoder
from asr.encoders.recurrent import RecurrentEncoder
from asr.encoders.transformer import TransformerEncoder

ENCODERS = {
    "recurrent": RecurrentEncoder,
    "transformer": TransformerEncoder,
    "conformer": ConformerEncoder,
}


def build_encoder(description: dict, name: str):
    """Builds an encoder from its description, such as {"type": "recurrent", "width": 320}.

    Raises ValueError for an unknown type or option.
    """
    return build_layer("encoder", ENCODERS, description, name)


def build_layer(what: str, kinds: Mapping[str, type], description: dict, name: str):
    """A layer of one of some kinds, from its description. Raises ValueError as above."""
    options = dict(description)
    kind = options.pop("type", None)
    if kind not in kinds:
        raise ValueError(f"{what} type {kind!r} is unknown: use one of {', '.join(kinds)}")
    try:
        return kinds[kind](**options, name=name)
    except TypeError as error:
        raise ValueError(f"{kind} {what}: {error}") from error
