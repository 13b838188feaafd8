"""GANs for voxels, point clouds and terrain.

Importing it does not import torch; public names are imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
