"""What the server allows, and to whom: environment variables, since a key must not be seen in `ps`."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, fields

BEARER = "bearer "


@dataclass(frozen=True)
class Settings:
    """The limits of the API; docs/serving.md describes the variables.

    Attributes:
      api_key: that requests need, or None for all who reach the server.
      max_megabytes: of an upload.
      max_seconds: of sound; and that a WebSocket may be open.
      at_once: recordings that are recognised at the same time, taking turns.
      max_wait_seconds: until a recording's turn comes.
      max_streams: open WebSockets.
      max_idle_seconds: without a message on a WebSocket.
      max_message_kilobytes: of a message on a WebSocket.
      cors_origins: of web pages whose scripts may call the API.
    """

    api_key: str | None = None
    max_megabytes: int = 1000
    max_seconds: int = 4 * 3600
    at_once: int = 8
    max_wait_seconds: int = 60
    max_streams: int = 10
    max_idle_seconds: int = 60
    max_message_kilobytes: int = 1000
    cors_origins: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Raises ValueError for an empty key, and for a limit that is no whole number above 0."""
        api_key = environment.get("HARK_API_KEY")
        if api_key is not None and not api_key.strip():
            raise ValueError("HARK_API_KEY is empty; give a key, or unset it to serve everybody")
        limits = {}
        for name in (field.name for field in fields(cls) if field.type is int):
            variable = f"HARK_{name.upper()}"
            text = environment.get(variable)
            if text is None:
                continue
            if not (text.isascii() and text.isdecimal() and int(text) > 0):
                raise ValueError(f"{variable} is {text!r}; give a whole number above 0, or unset it")
            limits[name] = int(text)
        origins = environment.get("HARK_CORS_ORIGINS", "").replace(",", " ").split()
        return cls(api_key, **limits, cors_origins=tuple(origins))

    def admits(self, authorization: str) -> bool:
        """Whether the header `Authorization` has the key, compared in constant time."""
        if self.api_key is None:
            return True
        given = authorization[len(BEARER) :] if authorization.lower().startswith(BEARER) else ""
        # Headers are bytes, which Starlette reads as Latin-1.
        return hmac.compare_digest(given.strip().encode("latin-1"), self.api_key.strip().encode())
