"""Makes `plugin_packages` importable when these tests run alone."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))
