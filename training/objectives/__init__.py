"""What a network is trained for: parts of the loss, each with a weight, which a training step adds up."""

from training.objectives.attention import Attention
from training.objectives.consistency import Consistency
from training.objectives.ctc import CTC
from training.objectives.distillation import Distillation
from training.objectives.objective import Objective

__all__ = ["CTC", "Attention", "Consistency", "Distillation", "Objective"]
