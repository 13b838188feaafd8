"""The program `gan-3d`, also `python -m gan_3d`."""

from functools import partial

from gan_3d.domain import DOMAIN
from gan_core.cli import main as run

main = partial(run, DOMAIN)

if __name__ == "__main__":
    main()
