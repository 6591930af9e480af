"""training/prepare.py and training/corpora on small trees in each corpus' own layout."""

import hashlib
import http.server
import io
import itertools
import shutil
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asr.audio import SAMPLE_RATE
from training.commands import main
from training.corpora import CORPORA
from training.corpora.corpus import sounds
from training.corpora.download import download
from training.manifest import read_manifest

SECONDS = 0.5


def sound(path: Path, seconds: float = SECONDS, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * 300 * time), SAMPLE_RATE, **options)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def an4(folder: Path) -> None:
    for name, clips in (("train", "an4_clstk"), ("test", "an4test_clstk")):
        ids = [f"an{number}-{name[:2]}{speaker}-b" for speaker in "abcde" for number in (1, 2)]
        for id in ids:
            sound(folder / "an4/wav" / clips / id.split("-")[1] / f"{id}.sph", format="NIST")
        text(folder / f"an4/etc/an4_{name}.transcription", *(f"<s> RUBOUT G M </s> ({id})" for id in ids))


def common_voice(folder: Path) -> None:
    for number, name in enumerate(("train", "dev", "test")):
        clips = [f"common_voice_en_{number}{clip}.mp3" for clip in range(2)]
        for clip in clips:
            sound(folder / "clips" / clip)
        rows = (f'{"abcdef"[number] * 40}\t{clip}\t"Why?" she said.\t2\t0' for clip in clips)
        text(folder / f"{name}.tsv", "client_id\tpath\tsentence\tup_votes\tdown_votes", *rows)


def digits(folder: Path) -> None:
    for speaker in ("george", "lucas", "nicolas", "theo"):
        for digit in range(10):
            for take in (0, 4, 5, 20):
                sound(folder / "recordings" / f"{digit}_{speaker}_{take}.wav", 0.1)


def folder(folder: Path) -> None:
    for speaker in ("ann", "ben", "eve", "joe"):
        for name in "ab":
            sound(folder / speaker / f"{name}.m4a.wav")
            text(folder / speaker / f"{name}.m4a.txt", "Hold on,", "I'm coming!")


def librispeech(folder: Path) -> None:
    for name, speaker in (("dev-clean", "1272"), ("train-clean-100", "19"), ("train-clean-100", "26")):
        chapter = folder / "LibriSpeech" / name / speaker / "128104"
        ids = [f"{speaker}-128104-000{number}" for number in range(3)]
        for id in ids:
            sound(chapter / f"{id}.flac")
        text(chapter / f"{speaker}-128104.trans.txt", *(f"{id} HOLD ON" for id in ids))


def ljspeech(folder: Path) -> None:
    ids = [f"LJ001-{number:04}" for number in range(30)]
    for id in ids:
        sound(folder / "LJSpeech-1.1/wavs" / f"{id}.wav")
    rows = (f'{id}|In 1465, "sweet"|In fourteen sixty-five, "sweet"' for id in ids)
    text(folder / "LJSpeech-1.1/metadata.csv", *rows)


def speechocean762(folder: Path) -> None:
    for name, speakers in (("train", ("0001", "0002", "0005")), ("test", ("0003",))):
        ids = [(speaker, f"0{speaker}00{number}") for speaker in speakers for number in range(2)]
        for speaker, id in ids:
            sound(folder / f"speechocean762/WAVE/SPEAKER{speaker}/{id}.WAV")
        text(folder / f"speechocean762/{name}/text", *(f"{id}\tWE CALL IT BEAR" for _, id in ids))


def stm(folder: Path) -> None:
    for name in ("train", "dev", "test"):
        sound(folder / name / "sph" / f"{name}Talk.sph", 5.0, format="NIST")
        text(
            folder / name / "stm" / f"{name}Talk.stm",
            f"{name}Talk 1 {name}Talk 0.5 2.5 <o,f0,male> we 're {{NOISE}} here(2) [COUGH]",
            f"{name}Talk 1 {name}Talk 2.5 3.0 <o,f0,male> ignore_time_segment_in_scoring",
            f"{name}Talk 1 {name}Talk 3.0 4.0 <o,f0,male> an <unk> word",
        )


def vctk(folder: Path) -> None:
    for speaker in ("p225", "p226", "p227", "s5"):
        for number in range(2):
            id = f"{speaker}_00{number}"
            text(folder / "txt" / speaker / f"{id}.txt", "Please call Stella.")
            for microphone in (1, 2):
                sound(folder / "wav48_silence_trimmed" / speaker / f"{id}_mic{microphone}.flac")


TREES = {name: globals()[name] for name in CORPORA}
# Of each set: utterances, and a text.
EXPECTED = {
    "an4": ({"train": 8, "dev": 2, "test": 10}, "rubout g m"),
    "common_voice": ({"train": 2, "dev": 2, "test": 2}, '"Why?" she said.'),
    "digits": ({"train": 60, "dev": 20, "test": 80}, "zero"),
    "folder": ({"train": 4, "dev": 2, "test": 2}, "Hold on, I'm coming!"),
    "librispeech": ({"train-clean-100": 6, "dev-clean": 3}, "hold on"),
    "ljspeech": ({"train": 24, "dev": 3, "test": 3}, 'In fourteen sixty-five, "sweet"'),
    "speechocean762": ({"train": 4, "dev": 2, "test": 2}, "we call it bear"),
    "stm": ({"train": 1, "dev": 1, "test": 1}, "we're here"),
    "vctk": ({"train": 4, "dev": 2, "test": 2}, "Please call Stella."),
}


@pytest.fixture(params=CORPORA)
def corpus(request, tmp_path) -> tuple[str, Path]:
    TREES[request.param](tmp_path / "source")
    return request.param, tmp_path / "source"


def prepare(name: str, source: Path, *more: str) -> tuple[int, dict[str, list]]:
    output = source.parent / "manifests"
    code = main(["prepare", name, str(source), "--output", str(output), *more])
    return code, {path.stem: read_manifest(path) for path in output.glob("*.jsonl")}


def test_every_corpus(corpus, capsys):
    name, source = corpus
    code, sets = prepare(name, source)
    assert code == 0, capsys.readouterr().err
    sizes, said = EXPECTED[name]
    assert {set: len(entries) for set, entries in sets.items()} == sizes
    entry = sets[min(sets)][0]
    assert entry.text == said
    assert entry.written == (said if any(letter.isupper() for letter in said) else None)
    assert entry.audio.is_file()
    if name == "stm":
        assert (entry.offset_seconds, entry.duration_seconds) == (0.5, 2.0)
    if name not in ("digits", "ljspeech"):
        speakers = [{entry.speaker for entry in entries} for entries in sets.values()]
        assert sum(map(len, speakers)) == len(set.union(*speakers))
    assert "licence: " in capsys.readouterr().out


def test_what_is_wrong_is_named_and_the_rest_is_used(corpus, capsys):
    name, source = corpus
    _, before = prepare(name, source)
    files = [path for path in sounds(source) if "mic2" not in path.name]
    files[0].write_bytes(b"not sound")
    extra = files[0].with_name("unlisted" + files[0].suffix)
    shutil.copy(files[1], extra)
    shutil.rmtree(source.parent / "manifests")
    capsys.readouterr()
    code, sets = prepare(name, source)
    complaints = capsys.readouterr().err.splitlines()
    assert code == 1
    assert all(line.startswith("prepare: left out: ") for line in complaints)
    assert any(files[0].name in line for line in complaints)
    if name not in ("common_voice", "speechocean762", "stm"):  # where not all recordings need be listed
        assert any("unlisted" in line for line in complaints)
    assert sum(map(len, sets.values())) == sum(map(len, before.values())) - 1


@pytest.mark.parametrize("name", CORPORA)
def test_another_layout_is_refused(name, tmp_path, capsys):
    text(tmp_path / "source" / "notes.md", "nothing")
    assert main(["prepare", name, str(tmp_path / "source"), "--output", str(tmp_path / "out")]) == 2
    assert "it should hold" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_recording_and_an_id_given_twice(tmp_path, capsys):
    librispeech(tmp_path / "source")
    chapter = tmp_path / "source/LibriSpeech/dev-clean/1272/128104"
    (chapter / "1272-128104-0001.flac").unlink()
    with (chapter / "1272-128104.trans.txt").open("a") as file:
        file.write("1272-128104-0002 ANOTHER TEXT\n")
    code, sets = prepare("librispeech", tmp_path / "source")
    complaints = capsys.readouterr().err
    assert code == 1 and len(sets["dev-clean"]) == 2
    assert "no sound of 1272-128104-0001" in complaints and "1272-128104-0002 is listed twice" in complaints


def test_a_clip_in_two_sets(tmp_path, capsys):
    common_voice(tmp_path / "source")
    rows = (tmp_path / "source/train.tsv").read_text().splitlines()
    with (tmp_path / "source/dev.tsv").open("a") as file:
        file.write(rows[1] + "\n")
    code, sets = prepare("common_voice", tmp_path / "source")
    assert code == 1 and "common_voice_en_00.mp3: listed twice" in capsys.readouterr().err
    assert sum(map(len, sets.values())) == 6


def test_subtitles_cut_a_recording(tmp_path):
    sound(tmp_path / "source" / "film.wav", 10)
    text(
        tmp_path / "source" / "film.srt",
        *("1", "00:00:01,000 --> 00:00:02,500", "<i>Hold on,</i>", "42!", ""),
        *("2", "00:00:03,000 --> 00:00:04,000", "[music]", ""),
        *("3", "00:00:05,000 --> 00:00:06,000 align:left", "- I'm coming!"),
    )
    _, sets = prepare("folder", tmp_path / "source")
    entries = sorted(itertools.chain(*sets.values()), key=lambda one: one.offset_seconds)
    assert [one.written for one in entries] == ["Hold on, 42!", "- I'm coming!"]
    assert [(one.offset_seconds, one.duration_seconds) for one in entries] == [(1, 1.5), (5, 1)]


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one archive, in parts if asked to; `cut` is the number of bytes after which it breaks off."""

    content, cut, asked = b"", None, []

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.asked.append(start)
        if start >= len(self.content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start : self.cut])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Server.cut, Server.asked = None, []
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}/corpus.tar.gz"
    served.shutdown()
    thread.join()
    served.server_close()


def test_a_download_goes_on_and_is_checked(server, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("corpus/a.txt")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"text"))
    Server.content = packed.getvalue()
    md5 = hashlib.md5(Server.content).hexdigest()
    Server.cut = 50
    with pytest.raises(ValueError, match=r"corpus\.tar\.gz: .*run the command again"):
        download(server, md5, tmp_path)
    Server.cut = None
    download(server, md5, tmp_path)
    assert Server.asked == [0, 50]
    assert (tmp_path / "corpus" / "a.txt").read_text() == "text"
    download(server, md5, tmp_path)  # is there
    assert Server.asked == [0, 50]
    with pytest.raises(ValueError, match="MD5"):
        download(server, "0" * 32, tmp_path / "other")
    assert not list((tmp_path / "other").iterdir())
