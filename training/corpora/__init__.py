"""Where speech and text come from: one module a corpus."""
