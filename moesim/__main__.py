"""`python -m moesim`, and the command `moesim`."""

import sys


def main() -> None:
    """The command line; an interrupt that comes while it is still loaded is one line too."""
    try:
        from moesim.cli import main as run
    except KeyboardInterrupt:
        print("moesim: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
