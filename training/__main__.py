"""`python -m training` is `saaa-train`; torchrun needs the module form."""

import sys

from training.cli import main

sys.exit(main())
