"""The LSTM recurrence over time, with its gradient in closed form.

Automatic differentiation of the loop accumulates the weight gradients at every step, which made training on a
CPU ten times slower at batch 16. Here the input projection precedes the loop, the loop carries only h and c,
and the gradient of the recurrent weights is one matrix product after it.
"""

from keras import ops


def lstm(projected, recurrent_kernel):
    """Hidden states of LSTMs (Hochreiter & Schmidhuber 1997, with forget gates) that start from zeros.

    Args:
      projected: [steps, directions, batch, 4 × width], input times kernel plus bias; gates in Keras' order:
        input, forget, cell, output.
      recurrent_kernel: [directions, width, 4 × width].

    Returns:
      [steps, directions, batch, width].
    """

    @ops.custom_gradient
    def recurrence(projected, recurrent_kernel):
        gates, cells, hidden = _forward(projected, recurrent_kernel)

        def backward(*arguments, upstream=None):  # positional in TensorFlow and JAX, a keyword in PyTorch
            upstream = arguments[-1] if upstream is None else upstream
            return _backward(upstream, recurrent_kernel, gates, cells, hidden)

        return hidden, backward

    return recurrence(projected, recurrent_kernel)


def _forward(projected, recurrent_kernel):
    """Activated gates [steps, directions, batch, 4 × width], cells and hidden states [steps, …, width]."""
    width = recurrent_kernel.shape[1]
    zeros = ops.zeros_like(projected[0])

    def step(carry, t):
        _, cell, hidden = carry
        sums = projected[t] + _matmul_each(hidden, recurrent_kernel)
        input_gate, forget_gate, candidate, output_gate = ops.split(sums, 4, axis=-1)
        input_gate, forget_gate = ops.sigmoid(input_gate), ops.sigmoid(forget_gate)
        candidate, output_gate = ops.tanh(candidate), ops.sigmoid(output_gate)
        cell = forget_gate * cell + input_gate * candidate
        hidden = output_gate * ops.tanh(cell)
        gates = ops.concatenate([input_gate, forget_gate, candidate, output_gate], axis=-1)
        return (gates, cell, hidden), (gates, cell, hidden)

    return _scan(step, (zeros, zeros[..., :width], zeros[..., :width]), ops.shape(projected)[0])


def _matmul_each(x, kernels):
    """x [directions, batch, n] times kernels [directions, n, m]."""
    # One batched product of such small matrices takes TensorFlow three times as long on a CPU.
    return ops.stack([ops.matmul(x[i], kernels[i]) for i in range(kernels.shape[0])])


def _scan(step, start, steps, reverse=False):
    """The outputs of all steps: a tuple of [steps, directions, batch, …], one for each part of the carry.

    Scans over an index and restores the shapes: on TensorFlow, Keras' scan needs static lengths for several
    sequences, and loses the rank of its results when lengths are dynamic.
    """
    _, results = ops.scan(step, start, ops.arange(steps), reverse=reverse)
    return tuple(ops.reshape(r, (steps, *ops.shape(x))) for r, x in zip(results, start, strict=True))


def _backward(upstream, recurrent_kernel, gates, cells, hidden):
    """Gradients with respect to `projected` and `recurrent_kernel`, given that of the hidden states."""
    input_gate, forget_gate, candidate, output_gate = ops.split(gates, 4, axis=-1)
    previous_cells = _shifted(cells)
    squashed = ops.tanh(cells)
    # Everything that does not depend on later steps, for all steps at once.
    cell_slope = output_gate * (1 - ops.square(squashed))
    slopes = ops.concatenate(
        [
            candidate * input_gate * (1 - input_gate),
            previous_cells * forget_gate * (1 - forget_gate),
            input_gate * (1 - ops.square(candidate)),
            squashed * output_gate * (1 - output_gate),
        ],
        axis=-1,
    )
    transposed = ops.transpose(recurrent_kernel, (0, 2, 1))

    def step(carry, t):
        _, d_cell, d_hidden = carry
        d_hidden = d_hidden + upstream[t]
        d_cell = d_cell + d_hidden * cell_slope[t]
        d_sums = ops.concatenate([d_cell, d_cell, d_cell, d_hidden], axis=-1) * slopes[t]
        return (d_sums, d_cell * forget_gate[t], _matmul_each(d_sums, transposed)), (d_sums, d_cell, d_hidden)

    start = (ops.zeros_like(gates[0]), ops.zeros_like(cells[0]), ops.zeros_like(cells[0]))
    d_sums, _, _ = _scan(step, start, ops.shape(gates)[0], reverse=True)
    return d_sums, ops.einsum("sdbw,sdbg->dwg", _shifted(hidden), d_sums)


def _shifted(states):
    """The states one step earlier; zeros at the first step."""
    return ops.concatenate([ops.zeros_like(states[:1]), states[:-1]], axis=0)
