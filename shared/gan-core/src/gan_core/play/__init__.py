"""What the author of a system uses: games, players, adversaries, objectives, regularizers and presets."""
