"""Public corpora as people have them: one module each, which reads the corpus' own files.

A module has LAYOUT and LICENCE, perhaps ARCHIVES (a link and its MD5 sum each), and

    utterances(source: Path, report: Callable[[str], None]) -> Iterator[Utterance]

which reports in one line what cannot be used, and goes on. `training.prepare` makes manifests of them.
"""

CORPORA = (
    "an4",
    "common_voice",
    "digits",
    "folder",
    "librispeech",
    "ljspeech",
    "speechocean762",
    "stm",
    "vctk",
)
