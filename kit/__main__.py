"""`python -m kit` is `kit`."""

from kit.commands.cli import main

if __name__ == "__main__":
    main()
