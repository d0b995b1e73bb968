"""The documentation's examples, as code that runs."""

import re
import types
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def documented(page):
    """Run the Python examples of a page, one after the other, in one module; return that."""
    text = (DOCS / page).read_text()
    module = types.ModuleType(f"examples_of_{page.removesuffix('.md')}")
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        # Padded, so that the lines of a traceback are those of the page.
        source = "\n" * text.count("\n", 0, block.start(1)) + block[1]
        exec(compile(source, str(DOCS / page), "exec"), vars(module))
    return module
