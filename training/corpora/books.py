"""English books for language models: python -m training.corpora.books FOLDER... --like TEXT --output FILE

Folders are copies of these repositories, whose books are in the public domain:

    COST-ELTeC/ELTeC-eng (TEI XML; its markup CC BY 4.0)
    computationalstylistics/100_english_novels (plain text)
    mlschmitt/classic-books-markdown (Markdown)

Only books from which the text of --like has sentences are taken. To exclude the books of a test set, pass a
--like text that does not contain them.

The output has one sentence per line, normalised as transcripts are. Sentences with digits are left out, since
they can be read in several ways, and long sentences that occurred before, as in another edition.
"""

import argparse
import html
import lzma
import multiprocessing
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from asr.files import replacing
from training.language_model import ENGLISH, read_sentences
from training.scoring.console import progress

KINDS = (".md", ".txt", ".xml")
TELLING_WORDS = 10  # a sentence with so many words occurs in one book only
LEAST_COMMON = 20  # such sentences that a book must have in common with the text of --like

_TITLES = {"mr": "mister", "mrs": "missus", "ms": "miss", "dr": "doctor"}
_TITLES |= {"messrs": "messieurs", "st": "saint"}
_TITLE = re.compile(rf"\b({'|'.join(_TITLES)})\.(?=\s)", re.IGNORECASE)
_INITIAL = re.compile(r"\b([A-Z])\.(?=\s*[A-Z])")
# After a full stop with what closes a quotation, and before what may open one and a capital.
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]*_]*\s+(?=[\"'“‘(\[*_—–-]*[A-ZÀ-Þ])")
_NO_TEXT = re.compile(r"\[[^\]]*\]|<[^>]*>|!?\]\([^)]*\)")
_TEI_NO_TEXT = re.compile(r"<(head|note|figure|fw)\b.*?</\1>", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 where something cannot be read or nothing was found."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m training.corpora.books", description=__doc__, formatter_class=style
    )
    parser.add_argument("folders", nargs="+", type=Path, help="copies of the repositories")
    parser.add_argument("--like", required=True, help="text of the books that may be taken; .xz or plain")
    parser.add_argument("--output", type=Path, required=True, help="FILE.txt.xz")
    options = parser.parse_args(argv)
    try:
        books = sorted(p for folder in options.folders for p in folder.rglob("*") if p.suffix in KINDS)
        if not books:
            raise ValueError(f"{options.folders[0]}: has no book ({', '.join(KINDS)})")
        like = {hash(line) for block in read_sentences([options.like]) for line in block if _is_telling(line)}
        print(write(books, like, options.output))
    except (ValueError, OSError) as error:
        print(f"books: {error}", file=sys.stderr)
        return 2
    return 0


def write(books: Sequence[Path], like: set[int], output: Path) -> str:
    """Writes the sentences of the books that may be taken to an .xz file; says how many there were.

    `like` are hashes of long sentences, of which a book must have some. Raises ValueError where none has.
    """
    taken = words = 0
    seen: set[int] = set()
    with (
        multiprocessing.Pool() as pool,
        replacing(output) as partial,
        lzma.open(partial, "wt", encoding="utf-8", preset=1) as file,
    ):
        for sentences in progress("reading")(pool.imap(sentences_of, books), total=len(books)):
            telling = [hash(sentence) for sentence in sentences if _is_telling(sentence)]
            if sum(number in like for number in telling) < LEAST_COMMON:
                continue
            taken += 1
            for sentence in sentences:
                if hash(sentence) in seen:
                    continue
                if _is_telling(sentence):
                    seen.add(hash(sentence))
                words += sentence.count(" ") + 1
                file.write(sentence + "\n")
        if not taken:
            raise ValueError(f"none of {len(books)} books has {LEAST_COMMON} sentences of the text of --like")
    return f"{output}: {words} words of {taken} of {len(books)} books"


def sentences_of(path: Path) -> list[str]:
    """The normalised sentences of a book."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".xml":
        text = _tei_paragraphs(text)
    sentences = []
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.lstrip().startswith("#") or not any(c.islower() for c in paragraph):
            continue  # a heading
        paragraph = _NO_TEXT.sub(" ", paragraph)
        paragraph = _TITLE.sub(lambda match: _TITLES[match[1].lower()], paragraph)
        paragraph = _INITIAL.sub(r"\1", paragraph)
        for sentence in _SENTENCE_END.split(paragraph):
            if not any(c.isdigit() for c in sentence) and (words := ENGLISH.normalize(sentence)):
                sentences.append(words)
    return sentences


def _tei_paragraphs(text: str) -> str:
    body = text.partition("<body")[2].rpartition("</body>")[0]
    body = _TEI_NO_TEXT.sub(" ", body)
    return html.unescape(re.sub(r"<[^>]*>", " ", re.sub(r"</(p|l|lg|div)>", "\n\n", body)))


def _is_telling(sentence: str) -> bool:
    return sentence.count(" ") + 1 >= TELLING_WORDS


if __name__ == "__main__":
    sys.exit(main())
