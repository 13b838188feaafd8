"""A run folder, read and shown: log, report, charts, comparison and symptoms. Loads no torch."""
