"""Layers, blocks and augmentations for any modality: sequences, images and volumes."""
