"""Metrics of sounds and tunes, and the extractors that they use."""
