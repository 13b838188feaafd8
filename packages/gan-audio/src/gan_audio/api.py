"""The functions of gan-audio; see `gan_core.api.Toolkit`."""

from gan_audio.domain import DOMAIN
from gan_core.api import Toolkit

_toolkit = Toolkit(DOMAIN)
create, train, resume, load = _toolkit.create, _toolkit.train, _toolkit.resume, _toolkit.load
evaluate, open_data, load_reference = _toolkit.evaluate, _toolkit.open_data, _toolkit.load_reference
