"""Weights on disk and from elsewhere: checkpoints, model folders, published checkpoints, export."""
