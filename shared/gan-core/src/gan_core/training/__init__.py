"""Training of games: the trainer, its state, turns, checkpoints, output, averaging, diagnostics and regimes."""
