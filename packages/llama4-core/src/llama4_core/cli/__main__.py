"""``python -m llama4_core.cli``."""

import sys

from llama4_core.cli.main import main

sys.exit(main())
