import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from asr.audio import SAMPLE_RATE, AudioError
from training.manifest import Entry, ManifestError, write_manifest
from training.scoring.transcripts import (
    Recognised,
    Reference,
    TimedWord,
    read_hypotheses,
    read_references,
    read_samples,
)

REFERENCES = [
    Reference("dev", "audio/1/1-0001", "one", recording="/data/audio/1/1-0001"),
    Reference("dev", "audio/2/2-0001", "two", recording="/data/audio/2/2-0001"),
    Reference(
        "dev", "audio/long@5", "three", recording="/data/audio/long", start_seconds=5.0, end_seconds=7.0
    ),
]


def write(path: Path, *lines: str | dict) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_references_of_a_manifest(tmp_path):
    words = [{"word": "one", "start": 0.1, "end": 0.4}]
    fields = {"corpus": "x", "words": words}
    write_manifest(
        tmp_path / "dev.jsonl",
        [
            Entry("a", tmp_path / "a.wav", "one", 1.0, 0.0, "anna", fields),
            Entry("a@2", tmp_path / "a.wav", "two", 1.0, 2.0, "anna"),
        ],
    )
    first, second = read_references(tmp_path / "dev.jsonl")
    assert (first.set, first.id, first.speaker, first.end_seconds) == ("dev", "a", "anna", None)
    assert first.words == (TimedWord("one", 0.1, 0.4),)
    assert first.fields["corpus"] == "x"
    assert (second.id, second.start_seconds, second.end_seconds) == ("a@2", 2.0, 3.0)


def test_references_of_trn_and_stm(tmp_path):
    one, two = read_references(
        write(tmp_path / "r.trn", ";; comment", "hold (on) there (anna_01)", "(bert-7-1)")
    )
    assert (one.id, one.text, one.speaker) == ("anna_01", "hold (on) there", "anna")
    assert (two.id, two.text, two.speaker) == ("bert-7-1", "", "bert")
    [segment] = read_references(write(tmp_path / "r.stm", "talk A anna 1.5 3 <o,f0> hold on"))
    assert (segment.id, segment.text, segment.duration_seconds) == ("talk-A@1.5", "hold on", 1.5)


def test_hypotheses_are_paired_by_id_not_by_line(tmp_path):
    path = write(
        tmp_path / "h.jsonl",
        {"id": "audio/2/2-0001", "text": "zwei"},
        {"id": "nobody", "text": "x"},
        {"id": "1-0001", "text": "eins"},
        {"audio_filepath": "long.wav", "offset": 5, "pred_text": "drei", "text": "three"},
        {"id": "2/2-0001", "text": "again"},
    )
    pairing = read_hypotheses(path, REFERENCES)["clean"]
    assert {id: recognised.text for id, recognised in pairing.recognised.items()} == {
        "audio/1/1-0001": "eins",
        "audio/2/2-0001": "zwei",
        "audio/long@5": "drei",
    }
    assert pairing.extra == ("nobody",)
    assert pairing.duplicates == ("2/2-0001",)


def test_stretches_that_begin_together_pair_by_their_duration(tmp_path):
    row = {"audio_filepath": "a.wav", "text": "x", "duration": 3}
    rows = [row, row | {"duration": 1}, row | {"audio_filepath": "a.mp3"}]
    references = read_references(write(tmp_path / "r.jsonl", *rows))
    texts = [row | {"text": str(number)} for number, row in enumerate(rows)]
    recognised = read_hypotheses(write(tmp_path / "h.jsonl", *reversed(texts)), references)[
        "clean"
    ].recognised
    assert [recognised[one.id].text for one in references] == ["0", "1", "2"]
    segments = read_references(write(tmp_path / "r.stm", "t A anna 1 2 hold", "t A bert 1 3 on"))
    assert [one.id for one in segments] == ["t-A@1+1", "t-A@1+2"]


def test_lines_of_several_conditions_make_a_pairing_each(tmp_path):
    path = write(
        tmp_path / "h.jsonl",
        '{"id": "1-0001", "text": "eins", "condition": "clean"}',
        '{"id": "1-0001", "text": "keins", "condition": "noise:10"}',
        '{"id": "2-0001", "text": "zwei"}',
    )
    noisy, other = Recognised("keins"), Recognised("zwei")
    pairings = read_hypotheses(path, REFERENCES, "reverb")
    assert [(name, pairing.recognised) for name, pairing in pairings.items()] == [
        ("clean", {"audio/1/1-0001": Recognised("eins")}),
        ("noise:10", {"audio/1/1-0001": noisy}),
        ("reverb", {"audio/2/2-0001": other}),
    ]


def test_an_empty_file_heard_nothing(tmp_path):
    assert read_hypotheses(write(tmp_path / "h.jsonl"), REFERENCES)["clean"].recognised == {}


def test_an_ambiguous_end_of_an_id_pairs_with_nothing(tmp_path):
    references = [Reference("dev", "a/same", "x"), Reference("dev", "b/same", "y")]
    pairing = read_hypotheses(write(tmp_path / "h.trn", "x (same)", "y (b/same)"), references)["clean"]
    assert pairing.recognised == {"b/same": Recognised("y")}
    assert pairing.extra == ("same",)


def test_words_of_a_ctm_go_where_their_middle_lies(tmp_path):
    path = write(
        tmp_path / "h.ctm",
        ";; comment",
        "long A 5.5 0.2 drei 0.9",
        "long A 4.8 0.3 early",  # middle 4.95: before the utterance
        "long A 4.9 0.4 da",
        "1-0001 A 0.2 0.5 eins NA",
        "none A 0 1 x",
    )
    pairing = read_hypotheses(path, REFERENCES)["clean"]
    assert pairing.recognised["audio/1/1-0001"] == Recognised("eins", (TimedWord("eins", 0.2, 0.7),))
    [first, second] = pairing.recognised["audio/long@5"].words
    assert (first.text, second.text, second.confidence) == ("da", "drei", 0.9)
    assert second.start == pytest.approx(0.5)
    assert pairing.extra == ("long A 4.8 early", "none A 0 x")


@pytest.mark.parametrize(
    ("name", "line", "complaint"),
    [
        ("h.jsonl", "{", "not JSON"),
        ("h.jsonl", "[]", "not a JSON object"),
        ("h.jsonl", {"id": "x"}, 'no "text"'),
        ("h.jsonl", {"text": "x"}, 'no "id"'),
        ("h.jsonl", {"id": "x", "text": "x", "words": [{"word": "x"}]}, '"words"'),
        ("h.jsonl", {"id": "x", "text": "x", "words": [1]}, '"words"'),
        ("h.jsonl", {"audio_filepath": "x", "text": "x", "offset": "now"}, '"offset"'),
        ("h.ctm", "talk A 1.0 0.1 word nan", "not a ctm line"),
        ("r.stm", "talk A anna 2 1 text", "not an stm line"),
        ("r.stm", "talk A anna nan 1 text", "not an stm line"),
        ("h.trn", "no id here", "no (id)"),
        ("h.trn", "{ um / uh } well (a_1)", "alternatives"),
        ("h.ctm", "talk A 1.0 word", "not a ctm line"),
        ("h.ctm", "talk A * * <ALT_BEGIN>", "alternatives"),
        ("r.stm", "talk A anna start 2 text", "not an stm line"),
        ("r.stm", "talk A anna 1 2 { um / uh }", "alternatives"),
    ],
)
def test_errors_name_file_line_and_remedy(tmp_path, name, line, complaint):
    path = write(tmp_path / name, "", line)
    with pytest.raises(ManifestError) as caught:
        read_references(path) if name == "r.stm" else read_hypotheses(path, REFERENCES)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert complaint in str(caught.value)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(ManifestError, match=r"none\.trn: No such file"):
        read_references(tmp_path / "none.trn")
    (tmp_path / "latin.trn").write_bytes("é (a_1)".encode("latin-1"))
    with pytest.raises(ManifestError, match="save it as UTF-8"):
        read_references(tmp_path / "latin.trn")


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,3}_[0-9]{1,3}", fullmatch=True), st.text("ab é'☕", max_size=12), min_size=1
    )
)
def test_every_utterance_of_a_trn_is_read(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "any.trn"
    path.write_text("".join(f"{text} ({id})\n" for id, text in texts.items()), "utf-8")
    references = read_references(path)
    assert {one.id: one.text for one in references} == {id: text.strip() for id, text in texts.items()}
    recognised = {one.id: Recognised(one.text) for one in references}
    assert read_hypotheses(path, references)["clean"].recognised == recognised


def test_samples_of_a_part_of_a_file(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.repeat([0.1, 0.2, 0.3], SAMPLE_RATE), SAMPLE_RATE, subtype="FLOAT")
    part = Reference("dev", "long@1", "", audio=path, start_seconds=1.0, end_seconds=2.0)
    assert read_samples(part).shape == (SAMPLE_RATE,)
    assert read_samples(Reference("dev", "long", "", audio=path)).shape == (3 * SAMPLE_RATE,)
    with pytest.raises(AudioError, match="give a manifest"):
        read_samples(Reference("dev", "x", ""))
