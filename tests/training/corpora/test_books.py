"""Books in three formats: what becomes a sentence, and which books are taken."""

import lzma

import pytest

from training.corpora.books import LEAST_COMMON, main, sentences_of

SENTENCES = [
    ('"It\'s Mr. Brown," said the porter.', ["it's mister brown said the porter"]),
    ("He rose. “Who?” asked Dr. A. B. Fell.", ["he rose", "who asked doctor a b fell"]),
    ("One sentence! And a second? Yes.", ["one sentence", "and a second", "yes"]),
    ("In 1812 he fell. Nobody came.", ["nobody came"]),
    ("He saw [1] the Rhône, as _every_ day;\nthen left.", ["he saw the rhone as every day then left"]),
    ("CHAPTER II", []),
]


@pytest.mark.parametrize(("paragraph", "expected"), SENTENCES)
def test_sentences_of_plain_text_and_markdown(tmp_path, paragraph, expected):
    for name in ("book.txt", "book.md"):
        (tmp_path / name).write_text(f"# A heading\n\n{paragraph}\n\n## 2\n", "utf-8")
        assert sentences_of(tmp_path / name) == expected


def test_sentences_of_tei(tmp_path):
    path = tmp_path / "book.xml"
    path.write_text(
        "<TEI><teiHeader><p>About the file.</p></teiHeader><text><body><div><head>The first</head>"
        "<p>Tom &amp; Jane <hi>ran</hi>\n home<note>not so</note>.</p><p>It rained.</p>"
        "</div></body></text></TEI>",
        "utf-8",
    )
    assert sentences_of(path) == ["tom jane ran home", "it rained"]


def book(name):
    """Telling sentences that no other book has."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [
        f"The {name} {letters[i]} {letters[i]} went to the market with nine of the others."
        for i in range(LEAST_COMMON)
    ]


def test_only_books_like_the_text_are_taken_and_nothing_twice(tmp_path, capsys):
    folder = tmp_path / "books"
    folder.mkdir()
    (folder / "wanted.txt").write_text(" ".join([*book("cat"), "It purred."]), "utf-8")
    (folder / "another edition.md").write_text("\n\n".join([*book("cat"), "A note of the editor."]), "utf-8")
    (folder / "tested on.txt").write_text(" ".join(book("dog")), "utf-8")
    like = tmp_path / "like.txt"
    like.write_text("\n".join(book("cat")), "utf-8")
    output = tmp_path / "all.txt.xz"
    assert main([str(folder), "--like", str(like), "--output", str(output)]) == 0
    with lzma.open(output, "rt") as file:
        lines = file.read().splitlines()
    assert sorted(lines) == sorted(
        [*(line.lower().rstrip(".") for line in book("cat")), "it purred", "a note of the editor"]
    )
    assert "2 of 3 books" in capsys.readouterr().out


def test_no_book_that_may_be_taken_is_one_line(tmp_path, capsys):
    (tmp_path / "book.txt").write_text(" ".join(book("dog")), "utf-8")
    (tmp_path / "like").write_text("\n".join(book("cat")), "utf-8")
    output = tmp_path / "all.txt.xz"
    assert main([str(tmp_path), "--like", str(tmp_path / "like"), "--output", str(output)]) == 2
    assert capsys.readouterr().err == "books: none of 1 books has 20 sentences of the text of --like\n"
    assert not output.exists()


def test_a_folder_without_books_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path), "--like", "none.txt", "--output", str(tmp_path / "out.xz")]) == 2
    assert capsys.readouterr().err == f"books: {tmp_path}: has no book (.md, .txt, .xml)\n"
