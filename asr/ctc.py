"""CTC loss (Graves et al. 2006) with true lengths, fast on every Keras backend.

One loop over time computes forward and backward variables: the backward recursion is the forward recursion on
the reversed utterance and labels. The gradient is in closed form (eq. 16 of the paper).
"""

import numpy as np
from keras import ops

from asr.tokenizer import BLANK_ID

LOG_ZERO = -1e30  # finite, to avoid inf - inf


def ctc_loss(logits, logit_lengths, labels, label_lengths):
    """Negative log-likelihood of each utterance's labels under CTC.

    Args:
      logits: [batch, steps, units], any float type; converted to float32 unless float64.
      logit_lengths: [batch] int, number of valid steps, at least 1.
      labels: [batch, labels] int, unit ids without blanks; padding at the end is ignored.
      label_lengths: [batch] int, number of valid labels; with 0 all steps should be blank.

    Returns:
      [batch], in nats. Utterances that cannot be aligned (`required_steps` > steps) have loss inf and
      gradient zero; exclude them from the mean.
    """
    dtype = "float64" if ops.dtype(logits) == "float64" else "float32"
    logits = ops.cast(logits, dtype)
    logit_lengths = ops.cast(logit_lengths, "int32")
    label_lengths = ops.cast(label_lengths, "int32")
    labels = ops.pad(ops.cast(labels, "int32"), [[0, 0], [0, 1]])  # at least one column

    @ops.custom_gradient
    def loss_of(logits):
        parts = _loss_and_gradient(logits, logit_lengths, labels, label_lengths)
        loss, gradient = map(ops.stop_gradient, parts)

        def backward(*arguments, upstream=None):  # positional in TensorFlow and JAX, a keyword in PyTorch
            upstream = arguments[-1] if upstream is None else upstream
            return gradient * upstream[:, None, None]

        return loss, backward

    return loss_of(logits)


def required_steps(labels) -> int:
    """Minimum number of steps for these unit ids: one each, plus a blank between equal neighbours."""
    labels = np.asarray(labels)
    return len(labels) + int(np.sum(labels[1:] == labels[:-1]))


def _loss_and_gradient(logits, logit_lengths, labels, label_lengths):
    """Loss [batch] and its gradient with respect to the logits, [batch, steps, units]."""
    batch, steps, units = ops.shape(logits)
    log_probs = ops.log_softmax(logits, axis=-1)
    states = 2 * ops.shape(labels)[1] + 1
    state_lengths = 2 * label_lengths + 1
    in_utterance = ops.arange(steps)[:, None] < logit_lengths[None, :]  # [steps, batch]
    in_labels = ops.arange(states)[None, :] < state_lengths[:, None]  # [batch, states]

    # The states of a labelling: blank, label, blank, label, …, blank.
    path = ops.stack([ops.full_like(labels, BLANK_ID), labels], axis=2)
    path = ops.pad(ops.reshape(path, (batch, states - 1)), [[0, 0], [0, 1]], constant_values=BLANK_ID)

    # Emissions [steps, batch, states], as rows of a flat table: gathering along an axis is slow on a CPU.
    table = ops.reshape(ops.transpose(log_probs, (0, 2, 1)), (batch * units, steps))
    emission = ops.take(table, path + units * ops.arange(batch, dtype="int32")[:, None], axis=0)
    emission = ops.transpose(ops.where(in_labels[:, :, None], emission, LOG_ZERO), (2, 0, 1))

    # The backward recursion is the second half of the batch, flipped in time and states.
    variables, scales = _forward_variables(
        ops.concatenate([emission, ops.flip(emission, axis=(0, 2))], axis=1),
        ops.concatenate([in_utterance, ops.flip(in_utterance, axis=0)], axis=1),
        ops.concatenate([path, ops.flip(path, axis=1)], axis=0),
        ops.concatenate([ops.zeros_like(state_lengths), states - state_lengths], axis=0),
    )
    alpha, beta = variables[:, :batch], ops.flip(variables[:, batch:], axis=(0, 2))

    # Paths may end in the last blank or in the label before it. After an utterance's end alpha is constant.
    from_end = state_lengths[:, None] - 1 - ops.arange(states)[None, :]
    at_end = ops.logical_and(from_end >= 0, from_end < 2)
    end = ops.logsumexp(ops.where(at_end, alpha[-1], LOG_ZERO), axis=1)
    feasible = ops.logical_not(end <= LOG_ZERO / 2)  # so that NaN stays NaN
    loss = ops.where(feasible, -(end + ops.sum(scales[:, :batch], axis=0)), float("inf"))

    # Posterior of each state by step. Both variables include the emission of their own step, hence the minus;
    # the softmax removes their scales.
    posterior = ops.softmax(alpha + beta - emission, axis=2)  # [steps, batch, states]
    counts = ops.matmul(ops.transpose(posterior, (1, 0, 2)), ops.one_hot(path, units, dtype=posterior.dtype))
    counted = ops.transpose(ops.logical_and(in_utterance, feasible[None, :]))[:, :, None]
    gradient = ops.where(counted, ops.exp(log_probs) - counts, ops.zeros_like(log_probs))
    return loss, gradient


def _forward_variables(emission, valid, path, start):
    """Log-probability of all paths to each state at each step, scaled to a maximum of 0 per step.

    Args:
      emission: [steps, batch, states], log-probability of each state's unit.
      valid: [steps, batch] bool; in the other steps the variables do not change.
      path: [batch, states], unit id of each state.
      start: [batch], the state in which paths begin; they may also begin in the next one.

    Returns:
      variables [steps, batch, states] and the log scales removed from them, [steps, batch].
    """
    # Two different labels may follow each other without a blank: a jump of two states.
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
    # Scan over an index and restore the shapes: see `asr.encoders.recurrence`.
    steps = ops.arange(ops.shape(emission)[0])
    _, (variables, scales) = ops.scan(step, (before, before[:, :1]), steps)
    return ops.reshape(variables, ops.shape(emission)), ops.reshape(scales, ops.shape(emission)[:2])
