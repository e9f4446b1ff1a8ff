"""Builds the page of `hemalum review` into wheels and source archives; an editable install goes without it.

A source archive carries the page as built, so that a wheel made of it needs no Node.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

STATIC = Path("src/hemalum/review/static")


class PageHook(BuildHookInterface):  # type: ignore[type-arg]  # of no configuration of its own
    """Makes `src/hemalum/review/static` from `web/` where it is not there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling, with `version` "editable" for `pip install -e`; ends with one line without Node."""
        root = Path(self.root)
        if version == "editable" or (root / STATIC / "index.html").is_file():
            return
        npm = shutil.which("npm")
        if npm is None:
            sys.exit(
                "error: the page of `hemalum review` is built with Node.js 18 or later and npm, which are not here: "
                "install them, or install hemalum from a wheel, or from this folder with `pip install -e .`"
            )
        web = root / "web"
        for arguments in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
            done = subprocess.run([npm, *arguments], cwd=web, stdout=sys.stderr, check=False)
            if done.returncode:
                sys.exit(f"error: the page of `hemalum review` is not built: npm {arguments[0]} failed in {web}")
