"""The program `gan-audio`, also `python -m gan_audio`."""

from functools import partial

from gan_audio.domain import DOMAIN
from gan_core.cli import main as run

main = partial(run, DOMAIN)

if __name__ == "__main__":
    main()
