"""`python -m m3i`: the same as the command `m3i`."""

from m3i.cli.main import main

if __name__ == "__main__":
    main()
