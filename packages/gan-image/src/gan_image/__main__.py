"""`gan-image`: gan-core's command line with this package's systems."""

from __future__ import annotations

from typing import NoReturn

from gan_image import DOMAIN


def main() -> NoReturn:
    """Runs the command line on the process's arguments."""
    from gan_core.cli import main as command_line

    command_line(DOMAIN)


if __name__ == "__main__":
    main()
