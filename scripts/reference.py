"""Writes the pages of docs/reference/ that follow from the code: every key of the configurations, every argument of the jobs.

python scripts/reference.py             # writes configuration.md and command-line.md
python scripts/reference.py --check     # writes nothing; exit code 1 and a diff where a page is not up to date
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from reference_command_line import command_line_page
from reference_configuration import configuration_page

PAGES = Path(__file__).resolve().parents[1] / "docs" / "reference"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or see that they are up to date.

    Returns:
        0 when the pages are up to date or were written, 1 when ``--check`` finds one that is not.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page is not up to date")
    check = parser.parse_args(arguments).check
    stale = False
    for name, make in {"configuration.md": configuration_page, "command-line.md": command_line_page}.items():
        head, _, rest = make().partition("\n")
        page = f"{head}\n\n<!-- Written by scripts/reference.py. Change the code, then run it again. -->\n{rest}"
        path = PAGES / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if not check:
            path.write_text(page, encoding="utf-8")
        elif page != before:
            stale = True
            print(*difflib.unified_diff(before.splitlines(), page.splitlines(), str(path), "the code", lineterm=""), sep="\n")
    if stale:
        print("run: python scripts/reference.py", file=sys.stderr)
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
