import json
import re

import numpy as np
import pytest

from training.scoring.report import write_report
from training.scoring.results import band, score
from training.scoring.transcripts import Output, Recognised, Reference, TimedWord


def reference(id: str, text: str, speaker: str = "", **others) -> Reference:
    return Reference(others.pop("set", "dev"), id, text, speaker, **others)


def recognised(**texts: str) -> dict[str, Recognised]:
    return {id: Recognised(text) for id, text in texts.items()}


def test_nothing_is_dropped_silently():
    references = [
        reference("a", "one two"),
        reference("b", "three four five"),
        reference("c", ""),
        reference("d", "never scored"),
    ]
    output = Output("x", recognised(a="one two", c="made up"), extra=("z",), duplicates=("a",))
    document = score(references, [output], ["basic"], not_scored={"d": "d.wav: no such file"}).document
    assert document["references"]["given"] == 4
    assert document["references"]["scored"] == 3
    assert document["normalizers"][0]["empty"] == 1
    assert document["references"]["not_scored"] == [{"id": "d", "reason": "d.wav: no such file"}]
    [pairing] = document["pairing"]
    assert (pairing["missing"], pairing["extra"], pairing["duplicates"]) == (["b"], ["z"], ["a"])
    [row] = document["scores"]
    assert row["counts"] == {
        "hits": 2,
        "substitutions": 0,
        "deletions": 3,
        "insertions": 2,
        "errors": 5,
        "words": 5,
    }
    assert row["wer"]["value"] == 1.0


def test_rates_are_of_the_whole_not_means_of_utterances():
    references = [reference("a", "one"), reference("b", "one two three")]
    document = score(references, [Output("x", recognised(a="uno", b="one two three"))], ["none"]).document
    assert document["scores"][0]["wer"]["value"] == 0.25


def test_only_empty_references():
    document = score(
        [reference("a", ""), reference("b", "")], [Output("x", recognised(a="oh", b=""))], ["none"]
    ).document
    assert document["scores"][0]["wer"]["value"] is None
    assert document["scores"][0]["counts"]["insertions"] == 1


def test_nothing_to_score():
    document = score([reference("a", "x")], [Output("x", {})], ["none"], not_scored={"a": "gone"}).document
    assert document["scores"] == []
    assert document["references"]["scored"] == 0


def test_several_normalisers_of_the_same_hypotheses():
    references = [reference("a", "Colour: it's 21, O'Brien!", "anna")]
    outputs = [
        Output("x", recognised(a="color it is twenty one o'brien")),
        Output("y", recognised(a="colour it's o'brien")),
    ]
    normalizers = ["english", "none", "basic"]
    document = score(references, outputs, normalizers).document
    assert [(row["name"], row["words"]) for row in document["normalizers"]] == [
        ("english", 5),
        ("none", 4),
        ("basic", 3),
    ]
    by_row = [(row["normalizer"], row["system"]) for row in document["scores"]]
    assert by_row == [(name, system) for name in normalizers for system in "xy"]
    wers = {row["normalizer"]: row["wer"]["value"] for row in document["scores"] if row["system"] == "x"}
    assert wers["english"] == 0.0
    assert wers["none"] == 6 / 4  # of "Colour: it's 21, O'Brien!"
    assert wers["basic"] == pytest.approx(5 / 3)  # of "colour it's o'brien"
    errors = {row["normalizer"]: row["mapsswe"]["mean"] for row in document["comparisons"]}
    assert errors == {"english": 0 - 1, "none": 6 - 3, "basic": 5 - 0}
    grouped = [(row["group"], row["normalizer"], row["system"]) for row in document["groups"]["speaker"]]
    assert grouped == [("anna", name, system) for name in normalizers for system in "xy"]
    one_by_one = [score(references, outputs, [name]).document for name in normalizers]
    assert document["scores"] == [row for one in one_by_one for row in one["scores"]]
    assert document["comparisons"] == [row for one in one_by_one for row in one["comparisons"]]
    assert document["confusions"] == one_by_one[0]["confusions"]


def test_capitals_and_punctuation_are_scored_where_they_are_known():
    references = [
        reference("a", "hold on anna", written="Hold on, Anna."),
        reference("b", "it is", written=None),
        reference("c", "", written=""),
    ]
    outputs = [Output("x", recognised(a="Hold on anna.", b="It is.")), Output("y", recognised(a="hold, in"))]
    document = score(references, outputs, ["basic"], cased=True).document["cased"]
    assert (document["utterances"], document["left_out"]) == (2, 1)
    x, y = document["scores"]
    assert x["counts"] == {
        "hits": 1,
        "substitutions": 2,
        "deletions": 0,
        "insertions": 0,
        "errors": 2,
        "words": 3,
    }
    assert (x["wer"]["value"], y["wer"]["value"]) == (pytest.approx(2 / 3), 1.0)
    assert (x["words_compared"], y["words_compared"]) == (3, 1)
    marks = {(row["system"], row["mark"]): row for row in document["marks"]}
    counts = {key: [row["both"], row["recognised"], row["written"]] for key, row in marks.items()}
    assert counts["x", "sentence end"] == [1, 1, 1]
    assert counts["x", "comma"] == [0, 0, 1]
    assert counts["x", "capital"] == [1, 1, 2]
    assert marks["x", "capital"]["recall"]["value"] == 0.5
    assert marks["x", "capital"]["f1"]["value"] == pytest.approx(2 / 3)
    assert marks["x", "comma"]["precision"]["value"] is None
    assert counts["y", "comma"] == [0, 1, 0]
    assert score(references, outputs, ["basic"]).document["cased"] is None


def test_unicode_is_kept_by_none_and_folded_by_basic():
    references = [reference("a", "Café 東京")]
    output = Output("x", recognised(a="cafe 東京"))
    assert score(references, [output], ["none"]).document["scores"][0]["counts"]["errors"] == 1
    assert score(references, [output], ["basic"]).document["scores"][0]["counts"] == {
        "hits": 1,
        "substitutions": 0,
        "deletions": 0,
        "insertions": 0,
        "errors": 0,
        "words": 1,
    }


def test_sets_groups_and_comparisons():
    rng = np.random.default_rng(0)
    references = [
        reference(
            f"u{row}",
            "a b c d e f",
            speaker=f"s{row % 6}",
            set="even" if row % 2 == 0 else "odd",
            duration_seconds=float(1 + row),
            fields={"gender": "f" if row % 3 else "m"},
        )
        for row in range(24)
    ]
    good = {one.id: Recognised(one.text) for one in references}
    bad = {
        one.id: Recognised(" ".join(np.where(rng.random(6) < 0.5, "x", one.text.split())))
        for one in references
    }
    outputs = [Output("good", good), Output("bad", bad)]
    document = score(references, outputs, ["none"], ["gender"]).document
    assert [(row["set"], row["system"]) for row in document["scores"]] == [
        (set, system) for set in ("even", "odd", "all") for system in ("good", "bad")
    ]
    by_set = {(row["set"], row["system"]): row for row in document["scores"]}
    assert by_set["all", "bad"]["resampled_by"] == "speaker"
    assert by_set["even", "bad"]["resampled_by"] == "utterance"  # three speakers only
    low, high = by_set["all", "bad"]["wer"]["interval"]
    assert low < by_set["all", "bad"]["wer"]["value"] < high
    last = document["comparisons"][-1]
    assert (last["set"], last["systems"]) == ("all", ["good", "bad"])
    assert last["interval"][1] < 0 and last["bootstrap_p"] < 0.05 and last["mapsswe"]["p"] < 0.01
    assert list(document["groups"]) == ["speaker", "duration", "gender"]
    assert [row["group"] for row in document["groups"]["duration"][::2]] == [
        "<2 s",
        "2–5 s",
        "5–10 s",
        "10–20 s",
        "≥20 s",
    ]
    for groups in document["groups"].values():
        assert sum(row["counts"]["words"] for row in groups if row["system"] == "bad") == 24 * 6


def test_bands():
    assert [band(value, (2, 5), "s") for value in (1.9, 2, 4.9, 5)] == ["<2 s", "2–5 s", "2–5 s", "≥5 s"]


def test_confusions_most_first():
    references = [reference(str(row), text) for row, text in enumerate(["a b c", "a b c", "d"])]
    output = Output("x", {"0": Recognised("a x c"), "1": Recognised("a x c"), "2": Recognised("d e")})
    confusions = score(references, [output], ["none"]).document["confusions"]["x"]
    assert confusions == {"substitute": [["b", "x", 2]], "delete": [], "insert": [["", "e", 1]]}


def test_times_and_confidence_of_words():
    said = (TimedWord("hold", 0.10, 0.30), TimedWord("on", 0.40, 0.50))
    words = (TimedWord("Hold", 0.12, 0.35, 0.9), TimedWord("in", 0.40, 0.50, 0.2))
    references = [reference("a", "hold on", words=said)]
    document = score(references, [Output("x", {"a": Recognised("Hold in", words)})], ["basic"]).document
    assert document["word_times"]["x"]["words"] == 1
    assert document["word_times"]["x"]["median_start_ms"] == pytest.approx(20)
    assert document["word_times"]["x"]["median_end_ms"] == pytest.approx(50)
    assert document["calibration"]["x"]["words"] == 2
    assert document["calibration"]["x"]["ece"] == pytest.approx((0.1 + 0.2) / 2)
    assert document["calibration"]["x"]["auc"] == 1.0


def test_words_too_early_are_as_wrong_as_words_too_late():
    said = tuple(TimedWord(word, start, start + 0.5) for word, start in (("a", 1.0), ("b", 2.0), ("c", 3.0)))
    words = (TimedWord("a", 0.96, 1.5), TimedWord("b", 2.02, 2.4), TimedWord("c", 2.97, 3.7))
    references = [reference("1", "a b c", words=said)]
    document = score(references, [Output("x", {"1": Recognised("a b c", words)})], ["basic"]).document
    assert document["word_times"]["x"]["median_start_ms"] == pytest.approx(30)  # of 40, 20 and 30
    assert document["word_times"]["x"]["median_end_ms"] == pytest.approx(100)  # of 0, 100 and 200
    assert document["word_times"]["x"]["median_ms"] == pytest.approx(35)


def test_words_that_a_normaliser_joins_are_left_out_of_calibration():
    words = (TimedWord("twenty", 0, 1, 0.9), TimedWord("one", 1, 2, 0.9))
    outputs = [
        Output(
            "x",
            {"a": Recognised("twenty one", words), "b": Recognised("yes", (TimedWord("yes", 0, 1, 0.8),))},
        )
    ]
    references = [reference("a", "21"), reference("b", "yes")]
    calibration = score(references, outputs, ["english", "basic"]).document["calibration"]["x"]
    assert (calibration["words"], calibration["utterances_left_out"]) == (1, 1)


def small_scores():
    references = [
        reference(
            "a/<b>", "it's <b>bold</b> & more", "anna", duration_seconds=2.0, written="It's <b>bold</b>!"
        ),
        reference("c", "", "bert", duration_seconds=3.0, written=""),
    ]
    texts = {"a/<b>": "it's </script> bold", "c": "oh"}
    outputs = [
        Output(system, {id: Recognised(text) for id, text in texts.items()}, condition)
        for system in ("one", "two")
        for condition in ("clean", "noise:20", "noise:5")
    ]
    return score(references, outputs, ["none", "basic"], cased=True)


def test_a_report_is_the_same_twice_and_its_page_stands_alone(tmp_path):
    header = {"command": "python -m training.evaluate <x>"}
    for folder in ("first", "second"):
        write_report(tmp_path / folder, small_scores(), header, {"date": "today", "speed": []})
    for name in ("report.html", "report.md", "results.json", "utterances.jsonl"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    page = (tmp_path / "first" / "report.html").read_text("utf-8")
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page)
    assert "<b>bold" not in page and "&lt;x&gt;" in page
    assert page.count("</script>") == 2
    rows = [
        json.loads(line) for line in (tmp_path / "first" / "utterances.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(rows) == 2 * 3
    assert rows[0]["systems"]["two"]["hits_substitutions_deletions_insertions"] == [1, 2, 1, 0]
    results = json.loads((tmp_path / "first" / "results.json").read_text("utf-8"))
    assert results["header"] == header and results["measured"]["date"] == "today"
    text = (tmp_path / "first" / "report.md").read_text("utf-8")
    assert "noise:20" in text
    for table in re.findall(r"^\|(?:.*\n\|)*.*", text, re.MULTILINE):  # both normalisers in each that has WER
        head = table.split("\n")[0]
        if ("WER" in head and "as written" not in head) or "clean" in head:
            assert "| normaliser |" in head and "| none |" in table and "| basic |" in table
        assert len({line.count("|") for line in table.split("\n")}) == 1
    assert "| dev | one | clean | comma |" in text
