"""The program `gan-medical`, also `python -m gan_medical`."""

from functools import partial

from gan_core.cli import main as run
from gan_medical.domain import DOMAIN

main = partial(run, DOMAIN)

if __name__ == "__main__":
    main()
