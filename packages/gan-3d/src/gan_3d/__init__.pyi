from .api import create as create
from .api import evaluate as evaluate
from .api import load as load
from .api import load_reference as load_reference
from .api import open_data as open_data
from .api import resume as resume
from .api import train as train
from .domain import DOMAIN as DOMAIN
