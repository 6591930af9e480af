"""Names of the files in a zip file of transcripts."""

import io
import zipfile

import pytest

from asr.transcript import Segment, Transcript, Word
from asr.web.zipped import zipped

SAID = Transcript((Segment(0.0, 1.0, "hello", (Word("hello", 0.0, 1.0, 0.9),)),), "en", 1.0, "tiny")


def names(*recordings, format="txt"):
    archive = zipfile.ZipFile(io.BytesIO(zipped([(name, SAID) for name in recordings], format)))
    assert all(archive.read(name) for name in archive.namelist())
    return archive.namelist()


def test_files_are_called_as_their_recordings():
    assert names("a.b.wav", "Ärger.mp3", "none") == ["a.b.txt", "Ärger.txt", "none.txt"]
    assert names("talk.wav", format="docx") == ["talk.docx"]


def test_equal_names_are_numbered_whatever_their_case():
    assert names("a.wav", "a.mp3", "A.ogg", "a-2.wav") == ["a.txt", "a-2.txt", "A-3.txt", "a-2-2.txt"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "..\\..\\evil.wav", "/root/x.wav", "..", ".wav", ""])
def test_no_name_leaves_the_folder(name):
    [member] = names(name)
    assert "/" not in member and "\\" not in member and not member.startswith("..")
