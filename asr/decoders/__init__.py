"""Decoders: layers that write text, token by token, from an encoder's outputs."""

from asr.decoders.transformer import TransformerDecoder

DECODERS = {"transformer": TransformerDecoder}


def build_decoder(description: dict, name: str):
    """Builds a decoder from its description, such as {"type": "transformer", "vocabulary": 24000}.

    Raises ValueError for an unknown type or option.
    """
    options = dict(description)
    kind = options.pop("type", None)
    if kind not in DECODERS:
        raise ValueError(f"decoder type {kind!r} is unknown: use one of {', '.join(DECODERS)}")
    try:
        return DECODERS[kind](**options, name=name)
    except TypeError as error:
        raise ValueError(f"{kind} decoder: {error}") from error
