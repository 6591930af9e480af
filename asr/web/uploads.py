"""Which page plays which uploaded file, so that a file goes with the last page that plays it."""

import os
import shutil
import threading
from pathlib import Path


class Uploads:
    """Gradio stores an upload under the hash of its content, so two pages may share one file."""

    def __init__(self):
        self._paths: dict[str, str] = {}  # page session → file
        self._lock = threading.Lock()

    def hold(self, session: str, path: str) -> None:
        """The page `session` plays `path` from now on; what it played before goes if no other does.

        The file counts as new for Gradio's sweep of old ones. Raises FileNotFoundError if that has taken it.
        """
        os.utime(path)
        with self._lock:
            before = self._paths.get(session)
            self._paths[session] = path
            self._delete_if_unused(before)

    def release(self, session: str) -> None:
        """The page `session` was closed or cleared."""
        with self._lock:
            self._delete_if_unused(self._paths.pop(session, None))

    def _delete_if_unused(self, path: str | None) -> None:
        if path is not None and path not in self._paths.values():
            shutil.rmtree(Path(path).parent, ignore_errors=True)  # the folder is the hash, made for this file
