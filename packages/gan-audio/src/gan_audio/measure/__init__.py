"""Metrics of sounds and tunes, and the feature extractors of sounds."""
