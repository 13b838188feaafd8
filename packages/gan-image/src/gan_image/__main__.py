"""The program `gan-image`, also `python -m gan_image`."""

from functools import partial

from gan_core.cli import main as run
from gan_image.domain import DOMAIN

main = partial(run, DOMAIN)

if __name__ == "__main__":
    main()
