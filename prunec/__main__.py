"""``python -m prunec``: the command line."""

from prunec.cli.commands import main

if __name__ == "__main__":
    main()
