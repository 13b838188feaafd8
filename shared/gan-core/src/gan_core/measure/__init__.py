"""Metrics of samples and of results, feature extractors, and evaluation."""
