"""`python -m facerwkv` is the command line."""

from facerwkv.cli import main

if __name__ == "__main__":
    main()
