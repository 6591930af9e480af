"""The CTC loss (Graves et al. 2006) with true lengths, fast on every Keras backend.

Forward and backward variables run in one loop over time: the backward recursion is the forward recursion on
the utterance and its labels read from their ends. With both at hand the gradient is known in closed form
(eq. 16 of the paper), so nothing is differentiated through the loop.
"""

import numpy as np
from keras import ops

from asr.tokenizer import BLANK_ID

LOG_ZERO = -1e30  # finite: sums of it stay away from inf - inf


def ctc_loss(logits, logit_lengths, labels, label_lengths):
    """Negative log-likelihood of each utterance's labels under CTC.

    Args:
      logits: [batch, steps, units] before softmax, any float type; computed in float32 (float64 stays).
      logit_lengths: [batch] int, valid steps of each utterance, at least 1.
      labels: [batch, labels] int unit ids without blanks; padding at the end is ignored.
      label_lengths: [batch] int, valid labels; 0 means that all steps should be blank.

    Returns:
      [batch], natural logarithm. Utterances that cannot be aligned (`required_steps` > steps) have loss inf
      and gradient zero: leave them out of the mean.
    """
    dtype = "float64" if ops.dtype(logits) == "float64" else "float32"
    logits = ops.cast(logits, dtype)
    logit_lengths = ops.cast(logit_lengths, "int32")
    label_lengths = ops.cast(label_lengths, "int32")
    labels = ops.pad(
        ops.cast(labels, "int32"), [[0, 0], [0, 1]]
    )  # so that an empty batch of labels has states

    @ops.custom_gradient
    def loss_of(logits):
        loss, gradient = _loss_and_gradient(logits, logit_lengths, labels, label_lengths)
        loss, gradient = ops.stop_gradient(loss), ops.stop_gradient(gradient)

        def backward(*arguments, upstream=None):  # TensorFlow and JAX hand it in place, PyTorch by name
            upstream = arguments[-1] if upstream is None else upstream
            return gradient * upstream[:, None, None]

        return loss, backward

    return loss_of(logits)


def required_steps(labels) -> int:
    """Fewest steps that a sequence of unit ids needs: one each, and a blank between two equal ones."""
    labels = np.asarray(labels)
    return len(labels) + int(np.sum(labels[1:] == labels[:-1]))


def _loss_and_gradient(logits, logit_lengths, labels, label_lengths):
    """Loss [batch] and its derivative by the logits [batch, steps, units]."""
    batch, steps, units = ops.shape(logits)
    log_probs = ops.log_softmax(logits, axis=-1)
    states = 2 * ops.shape(labels)[1] + 1
    state_lengths = 2 * label_lengths + 1
    in_utterance = ops.arange(steps)[:, None] < logit_lengths[None, :]  # [steps, batch]
    in_labels = ops.arange(states)[None, :] < state_lengths[:, None]  # [batch, states]

    # The states of a labelling: blank, label, blank, label, …, blank.
    path = ops.stack([ops.full_like(labels, BLANK_ID), labels], axis=2)
    path = ops.pad(ops.reshape(path, (batch, states - 1)), [[0, 0], [0, 1]], constant_values=BLANK_ID)

    # Emissions [steps, batch, states]; rows of one flat table: gathering along an axis is slow on a CPU.
    table = ops.reshape(ops.transpose(log_probs, (0, 2, 1)), (batch * units, steps))
    emission = ops.take(table, path + units * ops.arange(batch, dtype="int32")[:, None], axis=0)
    emission = ops.transpose(ops.where(in_labels[:, :, None], emission, LOG_ZERO), (2, 0, 1))

    # The backward recursion is a second half of the batch, flipped in time and states.
    variables, scales = _forward_variables(
        ops.concatenate([emission, ops.flip(emission, axis=(0, 2))], axis=1),
        ops.concatenate([in_utterance, ops.flip(in_utterance, axis=0)], axis=1),
        ops.concatenate([path, ops.flip(path, axis=1)], axis=0),
        ops.concatenate([ops.zeros_like(state_lengths), states - state_lengths], axis=0),
    )
    alpha, beta = variables[:, :batch], ops.flip(variables[:, batch:], axis=(0, 2))

    # Paths may end in the last blank or in the label before it. Past an utterance's end alpha stands still.
    from_end = state_lengths[:, None] - 1 - ops.arange(states)[None, :]
    at_end = ops.logical_and(from_end >= 0, from_end < 2)
    end = ops.logsumexp(ops.where(at_end, alpha[-1], LOG_ZERO), axis=1)
    feasible = ops.logical_not(end <= LOG_ZERO / 2)  # so that NaN stays NaN
    loss = ops.where(feasible, -(end + ops.sum(scales[:, :batch], axis=0)), float("inf"))

    # Share of each state in all paths, by step. Both variables count the emission of their own step; they are
    # scaled by step, and the softmax takes the scales out again.
    share = ops.softmax(alpha + beta - emission, axis=2)  # [steps, batch, states]
    counts = ops.matmul(ops.transpose(share, (1, 0, 2)), ops.one_hot(path, units, dtype=share.dtype))
    counted = ops.transpose(ops.logical_and(in_utterance, feasible[None, :]))[:, :, None]
    gradient = ops.where(counted, ops.exp(log_probs) - counts, ops.zeros_like(log_probs))
    return loss, gradient


def _forward_variables(emission, valid, path, start):
    """Log-probability of all paths to each step and state, scaled so that each step's largest is 0.

    Args:
      emission: [steps, batch, states] log-probability of each state's unit at each step.
      valid: [steps, batch] bool; elsewhere nothing changes.
      path: [batch, states] unit id of each state.
      start: [batch] the state in which all paths begin, or its successor.

    Returns:
      variables [steps, batch, states] and the logarithms [steps, batch] of the scales taken out.
    """
    # A label may follow another label at once where they differ: a jump of two states.
    jumps = ops.logical_and(path[:, 2:] != BLANK_ID, path[:, 2:] != path[:, :-2])
    jump_cost = ops.pad(ops.where(jumps, 0.0, LOG_ZERO), [[0, 0], [2, 0]], constant_values=LOG_ZERO)
    jump_cost = ops.cast(jump_cost, emission.dtype)
    before = ops.where(ops.arange(ops.shape(path)[1])[None, :] == start[:, None], 0.0, LOG_ZERO)

    def step(carry, t):
        previous, _ = carry
        padded = ops.pad(previous, [[0, 0], [2, 0]], constant_values=LOG_ZERO)
        one, two = padded[:, 1:-1], padded[:, :-2] + jump_cost
        largest = ops.maximum(ops.maximum(previous, one), two)
        total = ops.exp(previous - largest) + ops.exp(one - largest) + ops.exp(two - largest)
        alpha = ops.log(total) + (largest + emission[t])
        scale = ops.max(alpha, axis=1, keepdims=True)
        valid_now = valid[t][:, None]
        alpha = ops.where(valid_now, ops.maximum(alpha - scale, LOG_ZERO), previous)
        scale = ops.where(valid_now, scale, ops.zeros_like(scale))
        return (alpha, scale), (alpha, scale)

    before = ops.cast(before, emission.dtype)
    # One index is scanned, and shapes are restored: Keras' scan on TensorFlow takes several sequences only
    # where their length is static, and forgets the rank of its results where it is not.
    steps = ops.arange(ops.shape(emission)[0])
    _, (variables, scales) = ops.scan(step, (before, before[:, :1]), steps)
    return ops.reshape(variables, ops.shape(emission)), ops.reshape(scales, ops.shape(emission)[:2])
