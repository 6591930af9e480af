"""Archives from the web: downloads go on where they were cut off, and are checked before unpacking."""

import hashlib
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

BLOCK_BYTES = 1 << 20


def download(url: str, md5: str, folder: Path) -> None:
    """Fetches an archive into a folder and unpacks it there; does nothing where it was unpacked before.

    Raises:
      ValueError: the server does not have it, or what came is not what the corpus' authors published.
    """
    archive = folder / url.rpartition("/")[2]
    unpacked = archive.with_name(archive.name + ".unpacked")
    if unpacked.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(archive.name + ".part")
    try:
        _fetch(url, partial)
    except (urllib.error.URLError, OSError) as error:
        raise ValueError(f"{url}: {error}; run the command again to go on") from None
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        partial.unlink()
        raise ValueError(f"{url}: its MD5 sum is {found}, not {md5}: damaged, or another version")
    partial.replace(archive)
    shutil.unpack_archive(archive, folder, filter="data")
    archive.unlink()
    unpacked.touch()


def _fetch(url: str, path: Path) -> None:
    """Downloads, from the end of what is there."""
    done = path.stat().st_size if path.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    columns = *Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn()
    try:
        response = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        if done and error.code == 416:  # all of it is there
            return
        raise
    with response, Progress(*columns) as shown:
        goes_on = response.status == 206
        length = int(response.headers.get("Content-Length", 0))
        task = shown.add_task(path.name, total=length + done * goes_on or None, completed=done * goes_on)
        with path.open("ab" if goes_on else "wb") as file:
            while block := response.read(BLOCK_BYTES):
                file.write(block)
                shown.advance(task, len(block))
        if not shown.finished:
            raise OSError("the connection ended early")
