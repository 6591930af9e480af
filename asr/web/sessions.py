"""What the server keeps for each open page: the uploaded file, until the page closes."""

import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Session:
    """One open page with one recording.

    Attributes:
      path: the uploaded file.
      started: whether transcription has left the queue.
      cancelled: whether it was stopped, cleared, replaced or closed; transcription then ends early.
    """

    path: str
    started: bool = False
    cancelled: bool = False

    def keep_file(self) -> None:
        """Renews the file's age, so that Gradio does not delete it. FileNotFoundError if it already has."""
        os.utime(self.path)


def several(page: str) -> str:
    """The name of a page for the sessions of several recordings, one after another."""
    return f"{page} several"


class Sessions:
    """The open pages by Gradio's session hash. Uploads are stored by content hash: pages may use the same."""

    def __init__(self):
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def begin(self, page: str, path: str) -> Session:
        """Replaces the page's recording by `path`; the old file is deleted unless another page uses it."""
        with self._lock:
            previous = self._sessions.get(page)
            self._sessions[page] = session = Session(path)
            self._discard(previous)
            return session

    def get(self, page: str) -> Session | None:
        """None for a page without a recording."""
        return self._sessions.get(page)

    def end(self, page: str) -> None:
        """The recording was closed or cleared."""
        with self._lock:
            self._discard(self._sessions.pop(page, None))

    def _discard(self, session: Session | None) -> None:
        if session is None:
            return
        session.cancelled = True
        if session.path not in {other.path for other in self._sessions.values()}:
            # The upload's own folder, named by the hash.
            shutil.rmtree(Path(session.path).parent, ignore_errors=True)
