"""`python -m sciwm` is `sciwm`."""

import sys

from sciwm.cli import main

if __name__ == "__main__":
    sys.exit(main())
