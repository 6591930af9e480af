"""The form of a request, read within limits: no more bytes than allowed, and none waited for too long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import FormData
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from asr.serve.errors import ApiError, gone

# A body may take so long, and so much more for what has come of it. A mobile phone sends 10 times as fast.
BODY_SECONDS, SLOWEST_BYTES_PER_SECOND = 30.0, 10_000
MAX_FIELDS = 200  # of the form
MAX_FIELD_BYTES = 100_000  # of each, a prompt being the longest


@asynccontextmanager
async def read_form(request: Request, max_megabytes: int) -> AsyncIterator[FormData]:
    """The fields of a form in multipart/form-data, with at most one file, which is on disk above 1 MB.

    The file has no name there and is gone when the block ends, or the process. Raises ApiError for what is no
    such form, too large or too slow.
    """
    max_bytes = max_megabytes * 1_000_000
    too_large = ApiError(413, "file_too_large", f"The upload has more than {max_megabytes} MB.", "file")
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(415, "not_a_form", "Send a form as multipart/form-data, as curl -F does.")
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > max_bytes:
        raise too_large
    loop = asyncio.get_running_loop()
    started, received = loop.time(), 0

    async def receive() -> Message:
        nonlocal received
        deadline = started + BODY_SECONDS + received / SLOWEST_BYTES_PER_SECOND
        try:
            async with asyncio.timeout_at(deadline):
                message = await request.receive()
        except TimeoutError:
            raise ApiError(408, "slow_upload", "The upload is too slow; send it again.") from None
        received += len(message.get("body", b""))
        request.state.is_read = not message.get("more_body", False)
        if received > max_bytes:
            raise too_large
        return message

    try:
        form = await Request(request.scope, receive).form(
            max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
        )
    except ClientDisconnect:
        raise gone() from None
    except ValueError as error:  # a name in no known encoding, a number that is none
        raise ApiError(400, "broken_form", "The form cannot be read.") from error
    try:
        yield form
    finally:
        await form.close()
