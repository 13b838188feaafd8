"""The parts of a system: games, players, adversaries, objectives, regularizers and presets."""
