"""`python -m likejax.cli`, the same as `likejax`."""

from likejax.cli import main

raise SystemExit(main())
