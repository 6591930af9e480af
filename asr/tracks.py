"""Sound tracks of the containers that FFmpeg's libraries (PyAV) read, on the clock of a player.

A track may start after the picture, and its time stamps may jump where a recorder paused or packets were
lost. Silence of that length keeps later sound at its time.
"""

from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from math import inf

import numpy as np

from asr.chunks import AudioError, Chunks, Warn, by_kind, dropped, in_blocks, scaled

# Only containers that carry their sound in themselves: playlists (HLS, concat, SDP) make FFmpeg open other
# files and addresses that the sender of the file chose.
FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,loas,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,"
    "mpeg,mpegts,mxf,nistsphere,ogg,rm,tta,w64,wav,wv"
)
CHUNK_SECONDS = 0.5

MIN_GAP_SECONDS = 0.1  # smaller ones between time stamps are jitter, until they add up to this
RESTART_SECONDS = 1.0  # stamps that go back by more start again, as in files joined by `cat`
MAX_SILENCE_SECONDS = 6 * 3600.0  # added to one track; stamps that jump further are broken
SHORT_SECONDS = 0.5  # a recording that is shorter than its header says by more is truncated
TRUNCATED = "is truncated: its header states {:.1f} s, it holds {:.1f} s"
MUTE_PEAK = 1e-3  # a track that never passes it (-60 dBFS) holds no speech

# Formats in which seeking is exact: time stamps count samples, the index needs no decoding.
SEEKABLE_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "mp3")
SEEK_FROM_SECONDS = 5.0
PREROLL_SECONDS = 1.0  # decoded before the stretch that is wanted, because codecs predict from it


def open_container(file):
    """A container with at least one sound track, read from its start; `file` need not be seekable."""
    import av  # takes 0.07 s that WAV and FLAC need not wait for

    if hasattr(file, "seek"):
        file.seek(0)
    try:
        container = av.open(file, metadata_errors="replace", options={"format_whitelist": FORMATS})
    except (av.FFmpegError, ValueError) as error:
        raise AudioError("is no audio that can be read; convert it to WAV, FLAC, MP3 or M4A") from error
    if not container.streams.audio:
        container.close()
        raise AudioError("holds no sound track; give a recording with sound")
    return container


def file_chunks(reopen: Callable, offset_seconds: float, track: int | None, warn: Warn) -> Chunks:
    """One track of a seekable file; `reopen()` gives the file anew."""
    import av

    index = None
    for may_seek in (offset_seconds >= SEEK_FROM_SECONDS, False):
        with open_container(reopen()) as container:
            if index is None:
                index = chosen_track(container, track)
                if track is None and len(container.streams.audio) > 1:
                    index = _sounding_track(reopen, index, len(container.streams.audio), warn)
            stream = container.streams.audio[index]
            try:
                sought = may_seek and _seek(container, stream, offset_seconds - PREROLL_SECONDS)
            except av.FFmpegError:  # past the end, or a broken index
                continue
            yield from track_chunks(container, stream, warn, offset_seconds, sought)
            return


def chosen_track(container, track: int | None) -> int:
    """Index of a sound track. `track` counts from 1; None is the one marked as default, else the first."""
    from av.stream import Disposition

    streams = container.streams.audio
    if track is None:
        marked = (i for i, stream in enumerate(streams) if stream.disposition & Disposition.default)
        return next(marked, 0)
    if not 1 <= track <= len(streams):
        tracks = "one sound track" if len(streams) == 1 else f"{len(streams)} sound tracks"
        raise AudioError(f"has {tracks}, so there is no track {track}")
    return track - 1


def tell_of_others(index: int, count: int, chosen: int, warn: Warn) -> None:
    reason = f", because track {chosen + 1} is mute" if index != chosen else ""
    warn(f"has {count} sound tracks; track {index + 1} is read{reason}; choose another with --track")


def _sounding_track(reopen: Callable, chosen: int, count: int, warn: Warn) -> int:
    """The chosen one of several tracks, or the next one that is not mute."""
    index = chosen
    for candidate in [chosen, *(i for i in range(count) if i != chosen)]:
        with open_container(reopen()) as container:
            chunks = track_chunks(container, container.streams.audio[candidate], lambda message: None)
            if any(np.abs(samples).max(initial=0) > MUTE_PEAK for _, samples in chunks):
                index = candidate
                break
    tell_of_others(index, count, chosen, warn)
    return index


def _seek(container, stream, seconds: float) -> bool:
    """Goes to the last packet that starts by `seconds`; False where that is not possible to the sample."""
    exact = stream.rate and (stream.rate * stream.time_base).numerator == 1
    if container.format.name not in SEEKABLE_FORMATS or not exact or container.start_time is None:
        return False
    container.seek(int((container.start_time / 1e6 + seconds) / stream.time_base), stream=stream)
    return True


def track_chunks(container, stream, warn: Warn, offset_seconds: float = 0.0, sought: bool = False) -> Chunks:
    """One track from offset_seconds on; `sought`: the container was sent to some place before that."""
    if stream.codec_context is None:
        raise AudioError("holds sound of an unknown kind; convert it to WAV, FLAC, MP3 or M4A")
    frames = _frames(container, stream)
    head = []
    for item in frames:  # up to the first frame
        head.append(item)
        if item[1] is not None:
            break
    if not head:
        return
    origin = (head[0][0] or 0.0) if container.start_time is None else container.start_time / 1e6
    start = 0.0
    if sought:
        head = head[-1:]
        start = min(offset_seconds, head[0][0] - origin)
    format, codec = container.format.name, stream.codec_context.name
    # FFmpeg cannot decode the pauses in AMR, nor the tags between joined MP3 files: no damage.
    tolerated = inf if codec.startswith("amr") else MIN_GAP_SECONDS if format == "mp3" else 0.0
    stated = _stated_seconds(container, stream, origin)
    chunks = _on_clock(chain(head, frames), Clock(origin, start), stated, tolerated, warn)
    for rate, _, run in by_kind(dropped(chunks, offset_seconds - start)):
        for block in in_blocks(run, max(1, round(CHUNK_SECONDS * rate))):  # frames are short
            yield rate, block


def _stated_seconds(container, stream, origin: float) -> float:
    """Where the track ends by an exact header, or 0: other lengths are guessed, or those of the picture."""
    if container.format.name in (*SEEKABLE_FORMATS[:1], "flac") and stream.duration:
        return float((stream.duration + (stream.start_time or 0)) * stream.time_base) - origin
    if container.format.name == "matroska,webm" and len(container.streams) == 1:
        return (container.duration or 0) / 1e6
    return 0.0


def _frames(container, stream) -> Iterator[tuple]:
    """(time stamp in seconds or None, frame) of each frame; start and end of a broken packet, with None."""
    import av

    packets, scale = container.demux(stream), float(stream.time_base)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            yield None, None
            continue
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if packet.pts is not None:
                yield packet.pts * scale, None
                yield (packet.pts + (packet.duration or 0)) * scale, None
            continue
        for frame in frames:
            yield None if frame.pts is None else frame.pts * scale, frame


def _on_clock(frames: Iterator, clock: "Clock", stated: float, tolerated: float, warn: Warn) -> Chunks:
    """The samples of frames, with silence where their time stamps leave gaps; warnings come at the end.

    stated: seconds by the header, or 0. tolerated: seconds of broken packets that are no damage.
    """
    rate, channels, places, lost_seconds = 0, 0, 0, 0.0
    broken: tuple[float | None, float | None] | None = None  # stamps at which broken packets begin and end
    # The stamp of the next frame distinguishes a jump from a single broken stamp.
    for (stamp, frame), (next_stamp, _) in pairwise(chain(frames, [(None, None)])):
        if frame is None:
            broken = (broken or (stamp, stamp))[0], stamp
            continue
        if broken is not None:
            places += 1
            lost_seconds += (broken[1] or 0.0) - (broken[0] or 0.0)
            broken = None
        samples = scaled(_samples_of(frame))
        rate, channels = frame.sample_rate, samples.shape[1]
        if gap := clock.gap_before(stamp, next_stamp):
            yield from _silence(gap, rate, channels)
        yield rate, samples
        clock.position += len(samples) / rate
    if not rate:
        return
    gap = 0.0 if broken is None else clock.gap_before(broken[1], None)
    yield from _silence(gap, rate, channels)
    places, lost_seconds = places + (gap > 0), lost_seconds + gap
    if clock.ignored_seconds:
        warn(
            f"has time stamps that jump by {clock.ignored_seconds / 3600:.1f} h; at most "
            f"{MAX_SILENCE_SECONDS / 3600:.0f} h of silence are added, so later times may be too early"
        )
    elif clock.position < stated - SHORT_SECONDS:
        warn(TRUNCATED.format(stated, clock.position))
    elif places and lost_seconds >= tolerated:
        where = "one place" if places == 1 else f"{places} places"
        warn(f"is damaged in {where}; what can be read is used, with silence for what is lost")


class Clock:
    """Finds how much silence goes before each frame, so that it plays at the time of its stamp.

    origin: the stamp (seconds) at which the player's clock is 0. position: seconds on that clock that the
    sound has reached; the caller adds those of each frame.
    """

    def __init__(self, origin: float, position: float = 0.0):
        self.origin, self.position = origin, position
        self.added_seconds = 0.0
        self.ignored_seconds = 0.0  # by the furthest jump that was not followed

    def gap_before(self, stamp: float | None, next_stamp: float | None) -> float:
        """Seconds of silence before the frame with this stamp; `position` moves on by them.

        Small gaps are left until they add up. A stamp that the next one takes back is ignored, and so is a
        jump back; a jump too far is reported in `ignored_seconds`.
        """
        if stamp is None:
            return 0.0
        gap = stamp - self.origin - self.position
        if gap < -RESTART_SECONDS and (next_stamp is None or next_stamp < stamp + RESTART_SECONDS):
            self.origin += gap
        if gap < MIN_GAP_SECONDS or (next_stamp is not None and next_stamp < stamp):
            return 0.0
        if self.added_seconds + gap > MAX_SILENCE_SECONDS:
            self.ignored_seconds = max(self.ignored_seconds, gap)
            self.origin += gap
            return 0.0
        self.added_seconds += gap
        self.position += gap
        return gap


def _silence(seconds: float, rate: int, channels: int) -> Chunks:
    left = round(seconds * rate)
    while left:
        size = min(left, max(1, round(CHUNK_SECONDS * rate)))
        yield rate, np.zeros((size, channels), np.float32)
        left -= size


def _samples_of(frame) -> np.ndarray:
    samples = frame.to_ndarray()
    return samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
