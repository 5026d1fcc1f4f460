"""What the bare install weighs: `pip install .` without extras in a clean environment, and whether it needs torch.

Prints the MB that the install adds to an empty environment, and the time to import the facade and the client.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
IMPORTS = (
    "import saaa.client, saaa.report, serving.commands.cli, serving.server, sys; assert 'torch' not in sys.modules"
)


def main() -> None:
    """Install into a throw-away environment and measure."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "bare"
        venv.create(environment, with_pip=True)
        before = size(environment)
        python = str(environment / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", str(PROJECT)], check=True)
        added = size(environment) - before
        start = time.monotonic()
        subprocess.run([python, "-c", IMPORTS], check=True, cwd=folder)
        subprocess.run([str(environment / "bin" / "saaa"), "--help"], check=True, stdout=subprocess.DEVNULL)
        print(f"bare install adds {added / 1e6:.0f} MB (aim: at most 150)")
        print(f"importing client and facade without torch, and saaa --help: {time.monotonic() - start:.1f} s")


def size(folder: Path) -> int:
    """Bytes on disk of all files below."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
