"""Prints the README's test command: the fenced block below the comment `<!-- test command -->`, word for word."""

import re
import sys
from pathlib import Path

readme = Path(sys.argv[1]).read_text(encoding="utf-8")
found = re.search(r"<!-- test command -->\s*```\w*\n(.*?)\n```", readme, re.DOTALL)
if found is None:
    sys.exit(f"{sys.argv[1]} has no fenced block below <!-- test command -->")
print(found[1])
