"""The table of mutants fits the code: a mutant whose original text is gone would test nothing."""

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant, mutated


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_original_text_is_in_its_file_once_and_the_tests_exist(mutant: Mutant):
    assert mutated(mutant, ROOT) != (ROOT / mutant.file).read_text(encoding="utf-8")
    assert all((ROOT / path.partition("::")[0]).exists() for path in mutant.test_paths)
