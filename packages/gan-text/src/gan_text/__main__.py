"""The program `gan-text`, also `python -m gan_text`."""

from functools import partial

from gan_core.cli import main as run
from gan_text.domain import DOMAIN

main = partial(run, DOMAIN)

if __name__ == "__main__":
    main()
