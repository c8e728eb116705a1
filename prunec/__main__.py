"""``python -m prunec``: the command line."""

from prunec.cli import main

if __name__ == "__main__":
    main()
