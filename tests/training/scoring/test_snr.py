import numpy as np
import pytest

from asr.audio import SAMPLE_RATE
from training.scoring.snr import HIGHEST_DB, LOWEST_DB, estimate_snr_db


def bursts(rng: np.random.Generator) -> np.ndarray:
    """Half a second of tone, a quarter of nothing, and so on: what speech looks like to the estimate."""
    time = np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE
    return np.sin(2 * np.pi * 300 * time) * (time % 0.75 < 0.5)


@pytest.mark.parametrize("snr_db", [0, 5, 10, 20, 30])
def test_known_noise_is_found(snr_db):
    rng = np.random.default_rng(snr_db)
    speech = bursts(rng)
    noise = rng.normal(size=len(speech))
    loud = speech[speech != 0]
    noise *= np.sqrt((loud**2).mean() / (noise**2).mean() / 10 ** (snr_db / 10))
    assert estimate_snr_db((speech + noise).astype(np.float32)) == pytest.approx(snr_db, abs=2)


def test_the_extremes():
    assert estimate_snr_db(np.zeros(SAMPLE_RATE, np.float32)) == LOWEST_DB
    assert estimate_snr_db(np.zeros(10, np.float32)) == LOWEST_DB
    assert estimate_snr_db(np.ones(SAMPLE_RATE, np.float32)) == LOWEST_DB
    assert estimate_snr_db(bursts(np.random.default_rng(0)).astype(np.float32)) == HIGHEST_DB
