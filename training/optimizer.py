"""AdamW with rates by part of the model, and its learning rate schedule."""

import keras


class ScaledAdamW(keras.optimizers.AdamW):
    """AdamW whose learning rate is multiplied for variables under given names, e.g. {"encoder_0": 0.1}."""

    def __init__(self, *args, multipliers: dict[str, float] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.multipliers = multipliers or {}

    def update_step(self, gradient, variable, learning_rate):
        # On TensorFlow `variable` is a bare tf.Variable, which does not know its path.
        names = self._trainable_variables[self._get_variable_index(variable)].path.split("/")
        scale = next((value for name, value in self.multipliers.items() if name in names), 1.0)
        super().update_step(gradient, variable, learning_rate * scale)


@keras.saving.register_keras_serializable("hark")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up to `peak` over `warmup_steps`, then a linear decay to zero at `steps`."""

    def __init__(self, peak: float, warmup_steps: int, steps: int):
        self.peak, self.warmup_steps, self.steps = peak, warmup_steps, steps

    def __call__(self, step):
        step = keras.ops.cast(step, "float32") + 1.0
        up = step / max(1, self.warmup_steps)
        down = (self.steps - step) / max(1, self.steps - self.warmup_steps)
        return self.peak * keras.ops.clip(keras.ops.minimum(up, down), 0.0, 1.0)

    def get_config(self):
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "steps": self.steps}
