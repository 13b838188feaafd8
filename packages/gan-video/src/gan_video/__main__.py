"""The program `gan-video`, also `python -m gan_video`."""

from functools import partial

from gan_core.cli import main as run
from gan_video.domain import DOMAIN

main = partial(run, DOMAIN)

if __name__ == "__main__":
    main()
