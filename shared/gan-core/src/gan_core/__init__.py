"""The core of the GAN toolkits: games of players, objectives, regularizers, the trainer, runs and the command line.

Importing it loads no torch; public names are imported on first use.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
