"""Decoders: layers that write text, token by token, from an encoder's outputs."""

from asr.decoders.recurrent import RecurrentDecoder
from asr.decoders.transformer import TransformerDecoder
from asr.encoders import build_layer

DECODERS = {"transformer": TransformerDecoder, "recurrent": RecurrentDecoder}


def build_decoder(description: dict, name: str):
    """Builds a decoder from its description, such as {"type": "transformer", "vocabulary": 24000}.

    Raises ValueError for an unknown type or option.
    """
    return build_layer("decoder", DECODERS, description, name)
