"""Mutation testing: plausible mistakes put into the code one at a time, to see that a test fails for each.

    python -m tests.mutants                  all of them, some minutes with --jobs
    python -m tests.mutants ctc "beam: "     those whose name contains one of the words
    python -m tests.mutants --list           their names

Each mutant replaces a piece of source text, which must occur exactly once in its file, in a copy of the
checkout in a temporary folder. The tests named beside it are then run there; it is killed when one fails.
Before that the same tests must pass without any mutant. Not part of CI, which tests that the table is right.
"""

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEST_SECONDS = 400  # a mutant whose tests take longer hangs, and counts as killed
PASSED, FAILED = 0, 1  # exit codes of pytest; any other is an error of this script or of its table


@dataclass(frozen=True)
class Mutant:
    """A mistake: in `file`, `original` becomes `mistake`; one of `tests`, below tests/, should fail."""

    name: str
    file: str
    original: str
    mistake: str
    tests: str  # separated by spaces

    @property
    def test_paths(self) -> list[str]:
        return [f"tests/{test}" for test in self.tests.split()]


MUTANTS = [
    # Sound and utterances
    Mutant(
        "audio: rates swapped in resampling",
        "asr/audio.py",
        "soxr.ResampleStream(rate, SAMPLE_RATE,",
        "soxr.ResampleStream(SAMPLE_RATE, rate,",
        "asr/test_audio.py",
    ),
    Mutant(
        "audio: constant offset stays",
        "asr/audio.py",
        "MIN_OFFSET = 0.01",
        "MIN_OFFSET = 1.0",
        "asr/test_audio.py",
    ),
    Mutant(
        "audio: offset of arrays ignored",
        "asr/audio.py",
        "range(round(offset_seconds * rate), len(samples)",
        "range(0, len(samples)",
        "asr/test_audio.py",
    ),
    Mutant(
        "audio: 16-bit samples scaled by the whole range",
        "asr/chunks.py",
        "full_scale = (int(limits.max) - int(limits.min) + 1) // 2",
        "full_scale = int(limits.max) - int(limits.min) + 1",
        "asr/test_audio.py",
    ),
    Mutant(
        "tracks: seconds to skip counted in samples",
        "asr/chunks.py",
        "seconds -= count / rate",
        "seconds -= count",
        "asr/test_audio.py asr/test_tracks.py",
    ),
    Mutant(
        "segmentation: an utterance starts at the buffer's start",
        "asr/segmentation.py",
        "first + begin) * FRAME",
        "first) * FRAME",
        "asr/test_segmentation.py",
    ),
    Mutant(
        "segmentation: long speech cut at its shortest pause",
        "asr/segmentation.py",
        "np.argmax(pauses[candidates])",
        "np.argmin(pauses[candidates])",
        "asr/test_segmentation.py",
    ),
    Mutant(
        "segmentation: the detector forgets its state",
        "asr/segmentation.py",
        "probabilities, self.h, self.c = _silero()",
        "probabilities, _, _ = _silero()",
        "asr/test_segmentation.py",
    ),
    Mutant(
        "segmentation: no margin before speech",
        "asr/segmentation.py",
        "begin = max(0, possible[0] - MARGIN_FRAMES)",
        "begin = possible[0]",
        "asr/test_segmentation.py",
    ),
    Mutant(
        "segmentation: long speech cut before its last pause is known",
        "asr/segmentation.py",
        "< longest + LONG_PAUSE_FRAMES",
        "< longest",
        "asr/test_segmentation.py",
    ),
    # Live text
    Mutant(
        "streaming: a word is stable at its first reading",
        "asr/streaming.py",
        "zip(new, before, strict=False)",
        "zip(new, new, strict=False)",
        "asr/test_streaming.py",
    ),
    Mutant(
        "streaming: what is stable is read again",
        "asr/streaming.py",
        "if (word.start + word.end) / 2 > end]",
        "if word]",
        "asr/test_streaming.py",
    ),
    Mutant(
        "streaming: a final that was written ahead stays when speech goes on",
        "asr/streaming.py",
        "if self._segments is None or self._segments[0] != utterance.span:",
        "if self._segments is None:",
        "asr/test_streaming.py",
    ),
    Mutant(
        "streaming: a sample that was cut in two is lost",
        "asr/audio.py",
        "data = self._odd + view",
        "data = b'' + view",
        "asr/test_streaming.py",
    ),
    # Features
    Mutant(
        "features: maximum taken over padding",
        "asr/features.py",
        "loudest = ops.max(valid,",
        "loudest = ops.max(log_mel,",
        "asr/test_features.py",
    ),
    Mutant(
        "features: Hamming window",
        "asr/features.py",
        "0.5 - 0.5 * np.cos",
        "0.54 - 0.46 * np.cos",
        "asr/test_features.py",
    ),
    Mutant(
        "features: mirrored with the first sample twice",
        "asr/features.py",
        "ended[:, 1 : half + 1]",
        "ended[:, :half]",
        "asr/test_features.py",
    ),
    Mutant(
        "features: standardized over padding too",
        "asr/features.py",
        'count = ops.cast(ops.maximum(lengths, 1), "float32")[:, None, None]',
        'count = ops.cast(ops.shape(x)[1], "float32")',
        "asr/test_features.py",
    ),
    Mutant(
        "features: time masks reach into padding",
        "training/spec_augment.py",
        "starts = draws[..., 1] * (extent[:, None] - widths)",
        "starts = draws[..., 1] * extent[:, None]",
        "training/test_spec_augment.py",
    ),
    # CTC loss
    Mutant(
        "ctc: repeated labels need no blank",
        "asr/ctc.py",
        "ops.logical_and(path[:, 2:] != BLANK_ID, path[:, 2:] != path[:, :-2])",
        "path[:, 2:] != BLANK_ID",
        "asr/test_ctc.py",
    ),
    Mutant(
        "ctc: paths end in the last blank only",
        "asr/ctc.py",
        "from_end < 2",
        "from_end < 1",
        "asr/test_ctc.py",
    ),
    Mutant(
        "ctc: gradient's sign",
        "asr/ctc.py",
        "ops.exp(log_probs) - counts",
        "counts - ops.exp(log_probs)",
        "asr/test_ctc.py",
    ),
    Mutant(
        "ctc: upstream gradient dropped",
        "asr/ctc.py",
        "gradient * upstream[:, None, None]",
        "gradient",
        "asr/test_ctc.py",
    ),
    Mutant(
        "ctc: steps beyond the end count",
        "asr/ctc.py",
        "ops.arange(steps)[:, None] < logit_lengths[None, :]",
        "ops.arange(steps)[:, None] <= logit_lengths[None, :]",
        "asr/test_ctc.py",
    ),
    Mutant(
        "ctc: required steps without repeats",
        "asr/ctc.py",
        "return len(labels) + int(np.sum(labels[1:] == labels[:-1]))",
        "return len(labels)",
        "asr/test_ctc.py",
    ),
    # Network and encoders
    Mutant(
        "model: logits in half precision",
        "asr/model.py",
        'keras.layers.Dense(units, dtype="float32", name="output")',
        'keras.layers.Dense(units, name="output")',
        "asr/test_model.py",
    ),
    Mutant(
        "model: step length of the first encoder alone",
        "asr/model.py",
        "return math.prod(encoder.subsampling for encoder in self.encoders)",
        "return self.encoders[0].subsampling",
        "asr/test_model.py",
    ),
    Mutant(
        "encoders: a last lone frame is dropped",
        "asr/encoders/subsampling.py",
        "lengths = (lengths + 1) // 2",
        "lengths = lengths // 2",
        "asr/encoders/test_encoders.py::test_subsampling_keeps_an_odd_last_frame",
    ),
    Mutant(
        "encoders: stem convolves padding",
        "asr/encoders/subsampling.py",
        'x = mask_padding(x, lengths)\n            # "same"',
        '# "same"',
        "asr/encoders/test_encoders.py::test_padding_changes_nothing",
    ),
    Mutant(
        "encoders: attention sees padding",
        "asr/encoders/transformer.py",
        "mask = valid_steps(ops.shape(x)[1], lengths)[:, None, None, :]",
        "mask = None",
        "asr/encoders/test_encoders.py::test_padding_changes_nothing",
    ),
    Mutant(
        "encoders: positions off by one frequency",
        "asr/encoders/transformer.py",
        "np.log(LONGEST_PERIOD_STEPS) / (half - 1)",
        "np.log(LONGEST_PERIOD_STEPS) / half",
        "asr/encoders/test_encoders.py::test_positions_are_whispers",
    ),
    Mutant(
        "encoders: conformer convolves padding",
        "asr/encoders/conformer.py",
        "x = mask_padding(value * ops.sigmoid(gate), lengths)",
        "x = value * ops.sigmoid(gate)",
        "asr/encoders/test_encoders.py::test_padding_changes_nothing",
    ),
    Mutant(
        "encoders: conformer's second feed-forward counts whole",
        "asr/encoders/conformer.py",
        "x + 0.5 * self.drop(self.second(x)",
        "x + self.drop(self.second(x)",
        "asr/encoders/test_encoders.py::test_a_conformer_block_adds_its_parts",
    ),
    Mutant(
        "encoders: backward outputs reversed with their padding",
        "asr/encoders/recurrent.py",
        "outputs[1] = reverse_valid(outputs[1], lengths)",
        "outputs[1] = ops.flip(outputs[1], axis=1)",
        "asr/encoders/test_encoders.py::test_padding_changes_nothing",
    ),
    Mutant(
        "encoders: LSTM gates in another order",
        "asr/encoders/recurrence.py",
        "input_gate, forget_gate, candidate, output_gate = ops.split(sums, 4, axis=-1)",
        "forget_gate, input_gate, candidate, output_gate = ops.split(sums, 4, axis=-1)",
        "asr/encoders/test_recurrence.py",
    ),
    Mutant(
        "encoders: LSTM gradient by this step's cell",
        "asr/encoders/recurrence.py",
        "previous_cells = _shifted(cells)",
        "previous_cells = cells",
        "asr/encoders/test_recurrence.py",
    ),
    # Tokenizer
    Mutant(
        "tokenizer: BPE ids start at the blank",
        "asr/tokenizer.py",
        "[id + 1 for id in self._library.encode(text).ids]",
        "list(self._library.encode(text).ids)",
        "asr/test_tokenizer.py",
    ),
    Mutant(
        "tokenizer: lone apostrophes are words",
        "asr/tokenizer.py",
        "for word in text.split() if word.strip(APOSTROPHE))",
        "for word in text.split())",
        "asr/test_tokenizer.py",
    ),
    Mutant(
        "tokenizer: letters with accents are split before the alphabet is asked",
        "asr/tokenizer.py",
        'unicodedata.normalize("NFC", text',
        'unicodedata.normalize("NFD", text',
        "asr/test_tokenizer.py",
    ),
    # Decoding
    Mutant(
        "greedy: repeats are not merged",
        "asr/decoding/greedy.py",
        "np.flatnonzero(np.diff(best, prepend=-1))",
        "np.arange(len(best))",
        "asr/decoding/test_greedy.py",
    ),
    Mutant(
        "greedy: a unit lasts a step too long",
        "asr/decoding/greedy.py",
        "np.append(firsts, len(best))[1:] - 1",
        "np.append(firsts, len(best))[1:]",
        "asr/decoding/test_greedy.py",
    ),
    Mutant(
        "alignment: no blank between equal units",
        "asr/decoding/alignment.py",
        "np.where(labels[1:] == labels[:-1], -np.inf, 0.0)",
        "0.0",
        "asr/decoding/test_alignment.py",
    ),
    Mutant(
        "alignment: paths end in the last blank only",
        "asr/decoding/alignment.py",
        "scores[states - 2] > scores[states - 1]:",
        "scores[states - 2] > scores[states - 1] + 1e9:",
        "asr/decoding/test_alignment.py",
    ),
    Mutant(
        "alignment: way back too narrow",
        "asr/decoding/alignment.py",
        "max(0, state - 2 * (end - first))",
        "max(0, state - (end - first))",
        "asr/decoding/test_alignment.py",
    ),
    Mutant(
        "beam: the better of two paths instead of their sum",
        "asr/decoding/prefix_search.py",
        "candidates[place].unit = log_add(candidates[place].unit, arrival)",
        "candidates[place].unit = max(candidates[place].unit, arrival)",
        "asr/decoding/test_beam.py",
    ),
    Mutant(
        "beam: a unit may follow itself without a blank",
        "asr/decoding/prefix_search.py",
        "prefix.blank if nodes[node].unit == unit else",
        "",
        "asr/decoding/test_beam.py",
    ),
    Mutant(
        "beam: no word bonus",
        "asr/decoding/prefix_search.py",
        "ngram_log_prob(tables, history[start:], word) + language.beta",
        "ngram_log_prob(tables, history[start:], word)",
        "asr/decoding/test_beam.py",
    ),
    Mutant(
        "beam: a draft is searched as widely as a text",
        "asr/decoding/beam.py",
        "pruning = beam or self.beam",
        "pruning = self.beam",
        "asr/decoding/test_beam.py",
    ),
    Mutant(
        "beam: the text's end is not scored",
        "asr/decoding/prefix_search.py",
        "return total + language.alpha * ngram_log_prob(tables, history[start:], tables.end_id) + rewards",
        "return total + rewards",
        "asr/decoding/test_beam.py",
    ),
    Mutant(
        "hot words: long phrases without bound",
        "asr/decoding/hotwords.py",
        "weight = min(weight, MAX_BOOST / letters)",
        "weight = weight",
        "asr/decoding/test_hotwords.py asr/decoding/test_beam.py",
    ),
    Mutant(
        "hot words: a phrase counts inside longer words",
        "asr/decoding/hotwords.py",
        "for letter in text + WORD_BOUNDARY:",
        "for letter in text:",
        "asr/decoding/test_hotwords.py asr/decoding/test_beam.py",
    ),
    Mutant(
        "n-gram: back-off of one word of history forgotten",
        "asr/decoding/ngram.py",
        "backoff += tables.unigram_backoffs[ngram]",
        "backoff += 0.0",
        "asr/decoding/test_ngram.py",
    ),
    Mutant(
        "n-gram: the oldest words of a history instead of the newest",
        "asr/decoding/ngram.py",
        "history[max(0, len(history) - self.order + 1) :]",
        "history[: self.order - 1]",
        "asr/decoding/test_ngram.py",
    ),
    Mutant(
        "words: end at the start of the last step",
        "asr/decoding/words.py",
        "(word.steps[-1][1] + 1) * step_seconds",
        "word.steps[-1][1] * step_seconds",
        "asr/decoding/test_words.py",
    ),
    Mutant(
        "words: as certain as their most certain unit",
        "asr/decoding/words.py",
        "certainty = min(certainty, log_probs[first : last + 1, unit].max())",
        "certainty = log_probs[first : last + 1, unit].max()",
        "asr/decoding/test_words.py",
    ),
    # Transcript and recogniser
    Mutant(
        "transcript: seconds cut to milliseconds, not rounded",
        "asr/transcript.py",
        "return round(seconds * 1000)",
        "return int(seconds * 1000)",
        "asr/test_transcript.py",
    ),
    Mutant(
        "transcript: SRT times with a point",
        "asr/transcript.py",
        "{_clock(start, ',')} -->",
        "{_clock(start, '.')} -->",
        "asr/test_transcript.py",
    ),
    Mutant(
        "transcript: minutes are not carried to hours",
        "asr/transcript.py",
        "hours, minutes = divmod(minutes, 60)",
        "hours, minutes = 0, minutes",
        "asr/test_transcript.py",
    ),
    Mutant(
        "transcript: subtitles overlap",
        "asr/transcript.py",
        "end = min(end, starts[index + 1])",
        "pass",
        "asr/test_transcript.py",
    ),
    Mutant(
        "recognizer: words timed from their utterance's start",
        "asr/recognizer.py",
        "start=start + word.start, end=start + word.end",
        "start=word.start, end=word.end",
        "asr/test_recognizer.py",
    ),
    Mutant(
        "align: a word as sure as its surest part",
        "asr/align.py",
        "confidence = min(part.confidence for part in parts)",
        "confidence = max(part.confidence for part in parts)",
        "asr/test_recognizer.py",
    ),
    # Bundle and engine
    Mutant(
        "engine: a graph of other weights is taken",
        "asr/engine.py",
        "if session.get_modelmeta().custom_metadata_map.get(WEIGHTS_DIGEST) != digest:",
        "if digest is None:",
        "asr/test_engine.py",
    ),
    Mutant(
        "joint: a draft is taken unread",
        "asr/decoding/joint.py",
        "while kept < len(proposed) and chosen[kept] == proposed[kept]:",
        "while kept < len(proposed):",
        "asr/decoding/test_joint.py",
    ),
    Mutant(
        "joint: hot words without regard to CTC",
        "asr/decoding/joint.py",
        "changed and changed.score > least",
        "changed",
        "asr/decoding/test_joint.py",
    ),
    Mutant(
        "joint: one hot word in a text",
        "asr/decoding/joint.py",
        "while self.hotwords and found and found[0] is not before:",
        "if self.hotwords and found:",
        "asr/decoding/test_joint.py",
    ),
    Mutant(
        "joint: babble is written down",
        "asr/decoding/joint.py",
        "if by_ctc is not None and self._is_babble(",
        "if by_ctc is None and self._is_babble(",
        "asr/decoding/test_joint.py",
    ),
    Mutant(
        "babble: sound without letters is speech",
        "asr/decoding/babble.py",
        "seconds_without * doubt > MOST_DOUBT",
        "seconds_without * doubt > 1e9",
        "asr/decoding/test_babble.py",
    ),
    Mutant(
        "babble: a sure word in silence",
        "asr/decoding/babble.py",
        "doubt = -np.mean(of_letters) * (1 + shortfall)",
        "doubt = shortfall",
        "asr/decoding/test_babble.py",
    ),
    Mutant(
        "babble: of a sure decoder",
        "asr/decoding/babble.py",
        "token_log_prob < TOKEN_LOG_PROB and",
        "True and",
        "asr/decoding/test_babble.py",
    ),
    Mutant(
        "joint: nothing is refused",
        "asr/decoding/joint.py",
        "REFUSAL = 2.5",
        "REFUSAL = 1e9",
        "asr/decoding/test_joint.py",
    ),
    Mutant(
        "attention: the prompt is learnt",
        "training/objectives/attention.py",
        ">= self.first - 1",
        ">= 0",
        "training/test_attention.py",
    ),
    Mutant(
        "engine: sound shorter than a window is not padded",
        "asr/engine.py",
        "count = max(SHORTEST_SAMPLES, len(samples))",
        "count = len(samples)",
        "asr/test_engine.py",
    ),
    Mutant(
        "engine: threads ignored",
        "asr/engine.py",
        "options.intra_op_num_threads = threads or 0",
        "options.intra_op_num_threads = 0",
        "asr/test_engine.py",
    ),
    Mutant(
        "bundle: non-finite weights are loaded",
        "asr/bundle.py",
        "if not np.all(np.isfinite(value)):\n                raise",
        "if False:\n                raise",
        "asr/test_bundle.py",
    ),
    # Training data
    Mutant(
        "data: the same augmentation every epoch",
        "training/data.py",
        "np.random.default_rng([self.seed or 0, self.epoch, i])",
        "np.random.default_rng([self.seed or 0, i])",
        "training/test_data.py",
    ),
    Mutant(
        "data: a resumed epoch begins with its first batch",
        "training/data.py",
        "index += self.first_batch",
        "pass",
        "training/test_data.py",
    ),
    Mutant(
        "data: padded lengths",
        "training/data.py",
        '"lengths": _lengths(inputs)}',
        '"lengths": _lengths(pad(inputs, pad_inputs))}',
        "training/test_data.py",
    ),
    Mutant(
        "data: rows that fill up count",
        "training/data.py",
        '(rows < len(utterances)).astype("float32")',
        '(rows >= 0).astype("float32")',
        "training/test_data.py",
    ),
    Mutant(
        "speech: loud samples wrap round",
        "training/speech.py",
        "np.round(np.clip(samples, -1, 1) * INT16_SCALE)",
        "np.round(samples * INT16_SCALE)",
        "training/test_speech.py",
    ),
    Mutant(
        "speech: sound of another utterance where some were left out",
        "training/speech.py",
        "self._audio[self._indices[utterance]]",
        "self._audio[utterance]",
        "training/test_speech.py",
    ),
    Mutant(
        "frozen: cached outputs in the order of batches",
        "training/frozen.py",
        "np.argsort(np.concatenate(batches.plan))",
        "np.concatenate(batches.plan)",
        "training/test_frozen.py",
    ),
    Mutant(
        "frozen: outputs of other weights are taken from the cache",
        "training/frozen.py",
        "frozen.digest()]",
        "0]",
        "training/test_frozen.py",
    ),
    Mutant(
        "inputs: dev texts in the order of the manifest",
        "training/inputs.py",
        "texts = [speech.texts[i] for utterances in batches.plan for i in utterances]",
        "texts = list(speech.texts)",
        "training/test_callbacks.py",
    ),
    Mutant(
        "inputs: noise keeps its text",
        "training/inputs.py",
        'replace(entry, text="", duration_seconds',
        "replace(entry, duration_seconds",
        "training/test_inputs.py",
    ),
    Mutant(
        "inputs: the first cached copy is augmented",
        "training/inputs.py",
        "read_augmented if copy else read_clean",
        "read_augmented",
        "training/test_frozen.py",
    ),
    # Training step and objectives
    Mutant(
        "step: frozen encoders are trained",
        "training/step.py",
        "encoder.trainable = False",
        "encoder.trainable = True",
        "training/test_step.py",
    ),
    Mutant(
        "step: NaN left out of the loss",
        "training/step.py",
        "ops.logical_not(ops.isinf(losses))",
        "ops.isfinite(losses)",
        "training/test_step.py",
    ),
    Mutant(
        "step: weights of objectives ignored",
        "training/step.py",
        "total += objective.weight * mean",
        "total += mean",
        "training/test_step.py",
    ),
    Mutant(
        "objectives: views are not exchanged",
        "training/objectives/consistency.py",
        "ops.split(log_probs, 2)[::-1]",
        "ops.split(log_probs, 2)",
        "training/test_step.py",
    ),
    Mutant(
        "objectives: teacher's targets at another speed",
        "training/objectives/distillation.py",
        "fits = len(inputs) == self.lengths[utterance]",
        "fits = True",
        "training/test_step.py",
    ),
    # Loop
    Mutant(
        "callbacks: dev WER over padding",
        "training/callbacks.py",
        "greedy_decode(logits[:steps], self.tokenizer)",
        "greedy_decode(logits, self.tokenizer)",
        "training/test_callbacks.py",
    ),
    Mutant(
        "callbacks: resume a batch too far",
        "training/callbacks.py",
        'batches.start_at(progress["epoch"], progress["batch"])',
        'batches.start_at(progress["epoch"], progress["batch"] + 1)',
        "training/test_callbacks.py",
    ),
    Mutant(
        "callbacks: resume in the middle of other batches",
        "training/callbacks.py",
        'if progress["batch"] and plan_of(batches) == progress["plan"]:',
        'if progress["batch"]:',
        "training/test_callbacks.py",
    ),
    Mutant(
        "callbacks: a checkpoint may hold NaN",
        "training/callbacks.py",
        "check_weights(self.model)\n        if self.saves:",
        "if self.saves:",
        "training/test_callbacks.py",
    ),
    Mutant(
        "callbacks: counts batches from the resume",
        "training/callbacks.py",
        "done = self.first_batch + batch + 1",
        "done = batch + 1",
        "training/test_callbacks.py",
    ),
    Mutant(
        "callbacks: a resumed epoch's means go on from the epoch before",
        "training/callbacks.py",
        "self.model.reset_metrics()",
        "pass",
        "training/test_callbacks.py",
    ),
    Mutant(
        "optimizer: the rate never falls",
        "training/optimizer.py",
        "ops.minimum(up, down)",
        "ops.minimum(up, 1.0)",
        "training/test_optimizer.py",
    ),
    Mutant(
        "optimizer: multipliers ignored",
        "training/optimizer.py",
        "learning_rate * scale)",
        "learning_rate)",
        "training/test_optimizer.py",
    ),
    Mutant(
        "train: the rate falls to zero in the first epoch",
        "training/train.py",
        "steps = len(batches) * config.epochs",
        "steps = len(batches)",
        "training/test_short_runs.py",
    ),
    Mutant(
        "train: frozen encoders are not passed on",
        "training/train.py",
        "config.model.dropout, config.frozen_encoders",
        "config.model.dropout, 0",
        "training/test_short_runs.py",
    ),
    Mutant(
        "initialization: loads nothing",
        "training/initialization.py",
        "variable.assign(values / total)",
        "pass",
        "training/test_initialization.py",
    ),
    Mutant(
        "initialization: a head of other units",
        "training/initialization.py",
        "if bundle.tokenizer.symbols != tokenizer.symbols else []",
        "if bundle.tokenizer.size != tokenizer.size else []",
        "training/test_initialization.py",
    ),
    Mutant(
        "initialization: a new tokenizer on resume",
        "training/initialization.py",
        "if (folder / CHECKPOINT).exists() and path.exists():",
        "if False:",
        "training/test_initialization.py",
    ),
    Mutant(
        "config: unknown keys are ignored",
        "training/config.py",
        'extra="forbid"',
        'extra="ignore"',
        "training/test_config.py",
    ),
    Mutant(
        "augmentation: loud voices drown the others in babble",
        "training/augmentation.py",
        "max(np.sqrt(np.mean(np.square(voice))), 1e-6)",
        "1.0",
        "training/test_augmentation.py",
    ),
    Mutant(
        "inputs: speech becomes babble",
        "training/inputs.py",
        "if i >= len(speech) and random.random()",
        "if random.random()",
        "training/test_inputs.py",
    ),
    Mutant(
        "augmentation: noise at the inverse ratio",
        "training/augmentation.py",
        "power / noise_power / 10 ** (snr_db / 10)",
        "power / noise_power * 10 ** (snr_db / 10)",
        "training/test_augmentation.py",
    ),
    Mutant(
        "augmentation: gain in decibels of power",
        "training/augmentation.py",
        "10 ** (gain_db / 20)",
        "10 ** (gain_db / 10)",
        "training/test_augmentation.py",
    ),
    Mutant(
        "augmentation: faster is slower",
        "training/augmentation.py",
        "SAMPLE_RATE * factor, SAMPLE_RATE)",
        "SAMPLE_RATE, SAMPLE_RATE * factor)",
        "training/test_augmentation.py",
    ),
    # Scoring
    Mutant(
        "alignment: deletions are insertions",
        "training/scoring/alignment.py",
        '"delete": DELETIONS, "insert": INSERTIONS}',
        '"delete": INSERTIONS, "insert": DELETIONS}',
        "training/scoring/test_alignment.py",
    ),
    Mutant(
        "intervals: no small-sample factor for rates",
        "training/scoring/intervals.py",
        "* np.sqrt(units / (units - 1)) * np.log(values).std()",
        "* np.log(values).std()",
        "training/scoring/test_intervals.py",
    ),
    Mutant(
        "intervals: no small-sample factor for percentiles",
        "training/scoring/intervals.py",
        "ndtr(np.sqrt(units / (units - 1)) * stdtrit(",
        "ndtr(stdtrit(",
        "training/scoring/test_intervals.py",
    ),
    Mutant(
        "intervals: an utterance of each speaker counts",
        "training/scoring/intervals.py",
        "np.add.at(sums, units, counts)",
        "sums[units] += counts",
        "training/scoring/test_intervals.py",
    ),
    Mutant(
        "significance: deviation of a population",
        "training/scoring/significance.py",
        "ddof=1",
        "ddof=0",
        "training/scoring/test_significance.py",
    ),
    Mutant(
        "significance: one-sided probability",
        "training/scoring/significance.py",
        "float(2 * ndtr(-abs(z)))",
        "float(ndtr(-abs(z)))",
        "training/scoring/test_significance.py",
    ),
    Mutant(
        "results: limits belong to the band below",
        "training/scoring/results.py",
        "limit for limit in limits if value >= limit",
        "limit for limit in limits if value > limit",
        "training/scoring/test_results.py",
    ),
    Mutant(
        "results: word times without their sign's removal",
        "training/scoring/results.py",
        "1000 * np.abs(errors)",
        "1000 * np.array(errors)",
        "training/scoring/test_results.py",
    ),
    Mutant(
        "results: systems compared across normalisers",
        "training/scoring/results.py",
        "if (one.condition, one.normalizer) != (other.condition, other.normalizer):",
        "if one.condition != other.condition:",
        "training/scoring/test_results.py",
    ),
    Mutant(
        "cased: ties depend on which text is the reference",
        "training/scoring/cased.py",
        "first, second = pair if in_letters[0] <= in_letters[1] else pair[::-1]",
        "first, second = pair",
        "training/scoring/test_cased.py",
    ),
    Mutant(
        "cased: precision and recall exchanged",
        "training/scoring/cased.py",
        "both, recognised, written = np.moveaxis(counts, -1, 0)",
        "both, written, recognised = np.moveaxis(counts, -1, 0)",
        "training/scoring/test_results.py",
    ),
    Mutant(
        "cased: a comma inside a word",
        "training/scoring/cased.py",
        '"," in after',
        '"," in word',
        "training/scoring/test_cased.py",
    ),
    Mutant(
        "transcripts: ctm words keep the recording's time",
        "training/scoring/transcripts.py",
        "start - at, end - at, confidence",
        "start, end, confidence",
        "training/scoring/test_transcripts.py",
    ),
    Mutant(
        "transcripts: a ctm word's end instead of its duration",
        "training/scoring/transcripts.py",
        "float(begin) + float(length)",
        "float(length)",
        "training/scoring/test_transcripts.py",
    ),
    Mutant(
        "manifest: offset not in the id",
        "training/manifest.py",
        'after = start if entry.offset_seconds else ""',
        'after = ""',
        "training/test_manifest.py",
    ),
    Mutant(
        "suspicious: texts longer than what is recognised are not found",
        "training/suspicious.py",
        "max(len(units), len(own.units), 1)",
        "max(len(units) ** 2, len(own.units), 1)",
        "training/test_suspicious.py",
    ),
    Mutant(
        "suspicious: what the model hears is unusable without the voice detector",
        "training/suspicious.py",
        "and not has_voice and not own.text",
        "and not has_voice",
        "training/test_suspicious.py",
    ),
    Mutant(
        "finetune: a speaker of two seconds is measured on",
        "training/finetune.py",
        "if share / 2 <= part <= LARGEST",
        "if part <= LARGEST",
        "training/test_finetune.py",
    ),
    Mutant(
        "finetune: text without capitals for the decoder",
        "training/finetune.py",
        "words[first : first + count] = theirs[other : other + count]",
        "pass",
        "training/test_finetune.py",
    ),
    Mutant(
        "callbacks: the best epoch is by the CTC head alone",
        "training/callbacks.py",
        '[logs[name] for name in logs if name.startswith("nats_")]',
        "[]",
        "training/test_callbacks.py",
    ),
    Mutant(
        "callbacks: the best epoch is the last",
        "training/callbacks.py",
        "if not self.path.exists() or score <",
        "if True or score <",
        "training/test_callbacks.py",
    ),
    # Files and command line
    Mutant(
        "files: written in place",
        "asr/files.py",
        "with replacing(path) as partial:\n        partial.write_bytes(_bytes(content))",
        "path.write_bytes(_bytes(content))",
        "asr/test_files.py",
    ),
    Mutant(
        "cli: failed inputs do not show in the exit code",
        "asr/cli.py",
        "code = SOME_FAILED\n            continue",
        "continue",
        "asr/test_cli.py",
    ),
    Mutant(
        "cli: no suggestion for a misspelt word",
        "asr/cli.py",
        "close = difflib.get_close_matches(word.lower(), known, n=1)",
        "close = []",
        "asr/test_cli.py",
    ),
    # The server
    Mutant(
        "serve: any key is right",
        "asr/serve/settings.py",
        "return hmac.compare_digest(",
        "return True or hmac.compare_digest(",
        "serve/test_openai.py",
    ),
    Mutant(
        "serve: an upload without a length has no limit",
        "asr/serve/upload.py",
        "if received > max_bytes:",
        "if received > 1e12:",
        "serve/test_openai.py",
    ),
    Mutant(
        "serve: work goes on when its client goes",
        "asr/serve/openai.py",
        "        job.give_up()\n",
        "        pass\n",
        "serve/test_openai.py",
    ),
    Mutant(
        "serve: silence keeps its turn",
        "asr/turns.py",
        "timeout=TURN_SECONDS",
        "timeout=None",
        "serve/test_openai.py",
    ),
    Mutant(
        "serve: a place is not given back",
        "asr/serve/line.py",
        "            self._places.release()",
        "            pass",
        "serve/test_openai.py",
    ),
    Mutant(
        "serve: names of files are logged",
        "asr/serve/app.py",
        'route = getattr(request.scope.get("route"), "path", None)',
        'route = request.url.path + "?" + request.url.query',
        "serve/test_openai.py",
    ),
    Mutant(
        "serve: a flood is read as fast as it comes",
        "asr/serve/live.py",
        "while size < MOST_WAITING_BYTES and len(found) < MOST_WAITING:",
        "while size < 1e10:",
        "serve/test_socket.py",
    ),
    Mutant(
        "serve: a part of the sound is recognised twice",
        "asr/serve/live.py",
        "part = sound[start : start + turn_bytes]",
        "part = sound[start : start + turn_bytes + 3200]",
        "serve/test_socket.py",
    ),
    Mutant(
        "serve: words that may still change are sent as deltas",
        "asr/serve/realtime.py",
        "event.text[: event.stable_length]",
        "event.text",
        "serve/test_socket.py",
    ),
    Mutant(
        "serve: any page may open a WebSocket",
        "asr/serve/live.py",
        'if origin not in known and (origin or "").partition("://")[2] != websocket.headers.get("host"):',
        "if False:",
        "serve/test_socket.py",
    ),
    Mutant(
        "serve: programs without the key may use the page's WebSocket",
        "asr/serve/live.py",
        "known = () if for_page else",
        "known = (None,) if for_page else",
        "serve/test_live_page.py",
    ),
    Mutant(
        "page: an older picture replaces that of the last click",
        "asr/web/script/sound.js",
        "  if (drawn === segment) find",
        "  find",
        "browser/test_page.py",
    ),
    Mutant(
        "serve: after a reset the clock starts again",
        "asr/serve/live.py",
        "            self._stream_start = self.seconds\n",
        "",
        "serve/test_socket.py",
    ),
]


def mutated(mutant: Mutant, checkout: Path) -> str:
    """The file's text with the mistake in it. Raises ValueError where the original is not there just once."""
    text = (checkout / mutant.file).read_text(encoding="utf-8")
    times = text.count(mutant.original)
    if times != 1:
        raise ValueError(f"{mutant.name}: its original text occurs {times} times in {mutant.file}, not once")
    return text.replace(mutant.original, mutant.mistake)


def copy_checkout(folder: Path) -> None:
    """Copies the files that git tracks or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def failures(tests: Sequence[str], folder: Path, *options: str, compiled=False, seconds=None) -> list[str]:
    """The failures of tests in a copy of the checkout, as pytest sums them up.

    Args:
      options: of pytest.
      compiled: the mutant is in code that numba compiles, whose cache does not notice a changed callee.
      seconds: that they may take.

    Ends the run where pytest cannot run them.
    """
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    with tempfile.TemporaryDirectory() as fresh:
        environment["NUMBA_CACHE_DIR"] = fresh if compiled else f"{folder}.numba"
        command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", *options, *tests]
        try:
            result = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return [f"took more than {seconds} s"]
    if result.returncode not in (PASSED, FAILED):
        sys.exit(f"pytest cannot run {' '.join(tests)}:\n{result.stdout}{result.stderr}")
    return [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]


def survives(mutant: Mutant, folder: Path) -> bool:
    """Whether the tests pass with the mutant; says so."""
    path = folder / mutant.file
    text = path.read_text(encoding="utf-8")
    start = time.monotonic()
    path.write_text(mutated(mutant, folder), encoding="utf-8")
    try:
        found = failures(mutant.test_paths, folder, "-x", compiled="@compiled" in text, seconds=TEST_SECONDS)
    finally:
        path.write_text(text, encoding="utf-8")
    verdict = f"killed by {found[0]}" if found else "SURVIVED"
    print(f"{mutant.name} ({time.monotonic() - start:.0f} s): {verdict}", flush=True)
    return not found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="run the mutants whose name contains one of these (all)")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time (1)")
    parser.add_argument("--list", action="store_true", help="list the names")
    options = parser.parse_args()
    words = options.words or [""]
    chosen = [mutant for mutant in MUTANTS if any(word in mutant.name for word in words)]
    for mutant in chosen:
        mutated(mutant, ROOT)  # all of the table must be right before anything is run
    if options.list:
        print(*(mutant.name for mutant in chosen), sep="\n")
        return 0

    with tempfile.TemporaryDirectory() as temporary:
        folders: queue.Queue[Path] = queue.Queue()
        for job in range(options.jobs):
            copy_checkout(Path(temporary, f"{job}"))
            folders.put(Path(temporary, f"{job}"))
        tests = sorted({path for mutant in chosen for path in mutant.test_paths})

        def in_a_copy(function, argument):
            folder = folders.get()
            try:
                return function(argument, folder)
            finally:
                folders.put(folder)

        with ThreadPoolExecutor(options.jobs) as pool:
            parts = [tests[job :: options.jobs] for job in range(min(options.jobs, len(tests)))]
            broken = [
                line for lines in pool.map(lambda part: in_a_copy(failures, part), parts) for line in lines
            ]
            if broken:
                sys.exit("without any mutant:\n" + "\n".join(broken))
            alive = list(pool.map(lambda mutant: in_a_copy(survives, mutant), chosen))
    survivors = [mutant.name for mutant, survived in zip(chosen, alive, strict=True) if survived]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    for name in survivors:
        print(f"survived: {name}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
