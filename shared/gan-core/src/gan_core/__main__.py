"""`gan`, and `python -m gan_core`: the command line of all installed domains."""


def main() -> None:
    """Runs the command line and exits."""
    from gan_core.cli import main as run

    run()


if __name__ == "__main__":
    main()
