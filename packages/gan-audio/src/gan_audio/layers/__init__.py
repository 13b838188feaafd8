"""Losses and layers shared by the audio systems."""
