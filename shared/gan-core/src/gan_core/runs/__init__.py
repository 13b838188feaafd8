"""Run folders: log, report, charts, comparison of runs, and symptoms of failing trainings. Loads no torch."""
