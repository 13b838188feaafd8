"""The functions of gan-video; see `gan_core.api.Toolkit`."""

from gan_core.api import Toolkit
from gan_video.domain import DOMAIN

_toolkit = Toolkit(DOMAIN)
create, train, resume, load = _toolkit.create, _toolkit.train, _toolkit.resume, _toolkit.load
evaluate, open_data, load_reference = _toolkit.evaluate, _toolkit.open_data, _toolkit.load_reference
