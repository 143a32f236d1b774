"""``python -m likejax``, the same as ``likejax``."""

from likejax.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
