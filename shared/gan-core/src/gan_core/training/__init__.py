"""How a game is trained: the trainer, players' state, averaging, logging, diagnostics and regimes."""
