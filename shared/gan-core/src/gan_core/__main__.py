"""The program `gan`, also `python -m gan_core`: the commands of all installed domain packages."""

from gan_core.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
