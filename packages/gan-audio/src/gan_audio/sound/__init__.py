"""Sound files, pipes, datasets and spectrogram pictures."""
