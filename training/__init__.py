"""Everything that makes and measures Hark's models; `asr` never imports it."""
