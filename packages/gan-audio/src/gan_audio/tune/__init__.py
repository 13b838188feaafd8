"""Tunes: MIDI files, datasets, piano rolls and statistics."""
