"""`hark benchmark bulk`: what counts, and what is refused."""

import pytest

from training.benchmarks.bulk import counted
from training.commands import main


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_start_and_end_do_not_count(workers):
    begin, last = 30.0, 99.0  # of Ray; and of the last shard, while others have nothing to do
    times = [begin + 2.0 * (number // workers) for number in range(9 * workers)]
    times[-1] += last
    assert counted([(time, 100.0) for time in times], workers) == (600.0 * workers, 12.0)


def test_one_worker_and_too_little_sound_are_refused(capsys, tmp_path):
    pytest.importorskip("ray", reason="needs Ray: pip install '.[bulk]'")
    assert main(["benchmark", "bulk", str(tmp_path), "--workers", "1"]) == 2
    assert "give 2 or more" in capsys.readouterr().err
