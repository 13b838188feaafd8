"""Importers of published checkpoints, by system and network."""

from __future__ import annotations

from gan_audio import reference_midinet, reference_vocoders, reference_wavegan

IMPORTERS = reference_wavegan.IMPORTERS | reference_vocoders.IMPORTERS | reference_midinet.IMPORTERS
