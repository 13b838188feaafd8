"""Layers and losses shared by several systems, and faster equivalents of layers for inference."""
