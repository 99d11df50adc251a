"""Builds what is installed on a node: the Debian package, the one file, the image.

Beside the program and its tests, for none of it is needed to run or to test rsttrace itself.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD, DIST = ROOT / "build", ROOT / "dist"
VENDORED = ROOT / "requirements" / "vendored.lock"
"""What packages carry, for the oldest release has none of it, or an older one (Debian 11)."""
