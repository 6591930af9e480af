"""What the server keeps for each open page, and no longer: an uploaded file and its transcript."""

import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from asr.transcript import Transcript


@dataclass
class Visit:
    """One open page with one recording.

    Attributes:
      path: the uploaded file.
      transcript: what was heard of it so far.
      started: whether its turn has come to be transcribed.
      over: whether it was stopped, cleared, replaced or closed; whoever transcribes it leaves off.
    """

    path: str
    transcript: Transcript | None = None
    started: bool = False
    over: bool = False

    def keep_file(self) -> None:
        """Saves the file from Gradio's sweep of old ones. Raises FileNotFoundError if that was faster."""
        os.utime(self.path)


class Visits:
    """The open pages, by Gradio's session. Uploads lie under their content's hash: pages may share one."""

    def __init__(self):
        self._visits: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def begin(self, session: str, path: str) -> Visit:
        """The page plays `path` from now on; what it played before is deleted if no other page plays it."""
        with self._lock:
            before, now = self._visits.get(session), Visit(path)
            self._visits[session] = now
            self._leave(before)
            return now

    def get(self, session: str) -> Visit | None:
        """None for a page that plays nothing."""
        return self._visits.get(session)

    def end(self, session: str) -> None:
        """The page was closed or cleared."""
        with self._lock:
            self._leave(self._visits.pop(session, None))

    def _leave(self, visit: Visit | None) -> None:
        if visit is None:
            return
        visit.over = True
        if visit.path not in {other.path for other in self._visits.values()}:
            # The upload's own folder, named by the hash.
            shutil.rmtree(Path(visit.path).parent, ignore_errors=True)
