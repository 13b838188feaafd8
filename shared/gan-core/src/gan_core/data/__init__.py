"""Data: specifications, sources, compositions of sources, and the stream of batches.

Public names are imported on first use; importing a submodule loads no torch unless it needs it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
