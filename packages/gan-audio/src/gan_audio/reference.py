"""Importers of published checkpoints, by system and network."""

from __future__ import annotations

from gan_audio.published import midinet as reference_midinet
from gan_audio.published import vocoders as reference_vocoders
from gan_audio.published import wavegan as reference_wavegan

IMPORTERS = reference_wavegan.IMPORTERS | reference_vocoders.IMPORTERS | reference_midinet.IMPORTERS
