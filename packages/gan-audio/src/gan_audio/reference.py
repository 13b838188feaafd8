"""Importers of published checkpoints, by system and network."""

from __future__ import annotations

from gan_audio.published import midinet, vocoders, wavegan
from gan_core.models.reference import Importers

IMPORTERS: Importers = {**wavegan.IMPORTERS, **vocoders.IMPORTERS, **midinet.IMPORTERS}
