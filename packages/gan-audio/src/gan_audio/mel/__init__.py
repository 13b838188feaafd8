"""Mel spectrograms: their settings (the mel contract) and their files."""
