"""How noisy a recording is, estimated from its sound alone."""

import numpy as np

from asr.audio import SAMPLE_RATE

FRAME_SECONDS = 0.02
_QUIET, _LOUD = 10, 75  # percentiles of the frames' power: pauses, and the middle of the upper half
LOWEST_DB, HIGHEST_DB = -10.0, 60.0


def estimate_snr_db(samples: np.ndarray) -> float:
    """Speech over noise in dB, from samples [n]; within [LOWEST_DB, HIGHEST_DB].

    The quiet frames are taken for noise alone, the loud ones for speech and noise. An estimate: speech
    without a pause seems noisier than it is, and noise that comes and goes is partly taken for speech.
    """
    frame = round(FRAME_SECONDS * SAMPLE_RATE)
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    if not len(frames):
        return LOWEST_DB
    powers = (frames.astype(np.float64) ** 2).mean(axis=1)
    noise, both = np.percentile(powers, [_QUIET, _LOUD])
    if both <= 0:
        return LOWEST_DB
    ratio = max(both - noise, 1e-12 * both) / max(noise, 1e-12 * both)
    return float(np.clip(10 * np.log10(ratio), LOWEST_DB, HIGHEST_DB))
