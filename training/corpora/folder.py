"""A folder of recordings, each with its text beside it: NAME.txt, or subtitles NAME.srt or NAME.vtt."""

from collections.abc import Iterator
from pathlib import Path

from training.corpora.corpus import Report, Utterance, read_text, sounds
from training.subtitles import subtitles

LAYOUT = (
    "NAME.wav (or another sound) beside NAME.txt, NAME.srt or NAME.vtt, perhaps in a folder for each speaker"
)
LICENCE = "that of the recordings"


def utterances(source: Path, report: Report) -> Iterator[Utterance]:
    """Recordings with a .txt as they are, those with subtitles cut by their times; folders are speakers."""
    for sound in sounds(source):
        speaker = sound.parent.name if sound.parent != source else ""
        texts = [path for suffix in (".txt", ".srt", ".vtt") if (path := sound.with_suffix(suffix)).is_file()]
        if not texts:
            report(f"{sound}: no .txt, .srt or .vtt of that name beside it")
        elif texts[0].suffix == ".txt":
            text = " ".join(read_text(texts[0], report).split())
            yield Utterance(sound, text, speaker, is_written=True)
        else:
            for start, end, text in subtitles(read_text(texts[0], report)):
                yield Utterance(sound, text, speaker, "", start, end, is_written=True)
