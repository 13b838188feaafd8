"""Run folders: log, report, charts, comparison of runs, and symptoms of failing training. Does not import torch."""
