"""What imports what, and what stays unloaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ["torch", "matplotlib", "ray", "transformers", "pandas", "sklearn", "pyarrow", "scipy"]


def _loaded(code: str) -> list[str]:
    """Which heavy packages a fresh interpreter has loaded after `code`."""
    script = f"import json, sys\n{code}\nprint('\\n' + json.dumps(sorted(set({HEAVY!r}) & sys.modules.keys())))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_imports_point_downward():
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(lint), "--no-logo", "--no-cache"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_import_is_light():
    assert _loaded("import inscape; inscape.__version__; dir(inscape)") == []


HELP = """
import inscape.cli
sys.argv = ["inscape", "--help"]
try:
    inscape.cli.main()
except SystemExit as stop:
    assert not stop.code
"""


def test_help_is_light():
    assert _loaded(HELP) == []


@pytest.mark.parametrize("name", ["measures", "errors"])
def test_a_room_is_reached_by_attribute(name: str):
    code = f"import inscape\nassert inscape.{name}.__name__ == 'inscape.{name}'"
    assert "matplotlib" not in _loaded(code)


def test_an_unknown_name_lists_the_public_ones():
    import inscape

    with pytest.raises(AttributeError, match="module 'inscape' has no attribute 'captur'; the public names are .*capture"):
        inscape.captur
