"""``python -m sweepvi``."""

from sweepvi.cli import console

if __name__ == "__main__":
    console()
