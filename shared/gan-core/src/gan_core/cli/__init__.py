"""Command line of all domains: `gan-image …` and `gan image …` are the same program.

Results are written to standard output, progress and logs to standard error. The exit status is 0 if the command
succeeded, 1 if it failed, and 2 if the request or its input was invalid. Only commands that need torch import it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
