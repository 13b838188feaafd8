"""Weights on disk and from elsewhere."""
