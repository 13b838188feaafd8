"""Tools for networks of any modality: sequences, images and volumes."""
