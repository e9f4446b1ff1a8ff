"""`python -m hemalum` is `hemalum`."""

import sys

from hemalum.cli import main

sys.exit(main())
