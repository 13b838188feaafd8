"""Importers of published checkpoints, one module per family."""
