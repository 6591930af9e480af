"""What the server keeps for each open page: the uploaded files, until the page closes."""

import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Session:
    """One open page with one recording, or with several files.

    Attributes:
      paths: the uploaded files.
      started: whether transcription has left the queue.
      cancelled: whether it was stopped, cleared, replaced or closed; transcription then ends early.
    """

    paths: tuple[str, ...]
    started: bool = False
    cancelled: bool = False

    @property
    def path(self) -> str:
        """The uploaded file; the first of several."""
        return self.paths[0]

    def keep_file(self) -> None:
        """Renews the files' age, so that Gradio does not delete them. FileNotFoundError if it already has."""
        for path in self.paths:
            os.utime(path)


def several(page: str) -> str:
    """The name of a page for the sessions of several recordings, one after another."""
    return f"{page} several"


def evaluated(page: str) -> str:
    """The name of a page for what it evaluates."""
    return f"{page} evaluated"


class Sessions:
    """The open pages by Gradio's session hash. Uploads are stored by content hash: pages may use the same."""

    def __init__(self):
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def begin(self, page: str, *paths: str) -> Session:
        """Replaces the page's files by `paths`; old ones are deleted unless another page uses them."""
        with self._lock:
            previous = self._sessions.get(page)
            self._sessions[page] = session = Session(paths)
            self._discard(previous)
            return session

    def get(self, page: str) -> Session | None:
        """None for a page without a recording."""
        return self._sessions.get(page)

    def end(self, page: str) -> None:
        """The recording was closed or cleared."""
        with self._lock:
            self._discard(self._sessions.pop(page, None))

    def end_all(self, page: str) -> None:
        """The page was closed."""
        for name in (page, several(page), evaluated(page)):
            self.end(name)

    def _discard(self, session: Session | None) -> None:
        if session is None:
            return
        session.cancelled = True
        # Each upload's own folder, named by the hash of its content.
        used = {Path(path).parent for other in self._sessions.values() for path in other.paths}
        for folder in {Path(path).parent for path in session.paths} - used:
            shutil.rmtree(folder, ignore_errors=True)
