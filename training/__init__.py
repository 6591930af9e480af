"""Everything that makes and measures Hark's models; `asr` never imports it."""

import asr  # noqa: F401  (before any module here imports ONNX Runtime: see there)
