"""docs/sequence-models.md has the numbers that were measured (test_sequence_models.py patches the report)."""

import json
import re
from pathlib import Path

from training.benchmarks.sequence_report import filled

DOCS = Path(__file__).parents[2] / "docs"


def test_the_numbers_of_the_page_are_those_of_its_json():
    path = DOCS / "results" / "sequence-models.json"
    page = (DOCS / "sequence-models.md").read_text()
    assert filled(page, json.loads(path.read_text())) == page
    for name in re.findall(r"\]\((sequence-models-\w+\.svg)\)", page):
        assert (DOCS / name).stat().st_size <= 100_000
