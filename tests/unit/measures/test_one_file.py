"""A measure added as one file is everywhere at once: registry, command line, docs, report, and the generated laws."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# The file is called like the measure, which Python would bind as a submodule of the same name: that must not get in the way.
TRIAL = '''"""A trial."""

from __future__ import annotations

import math

from inscape.measures.base import measure
from inscape.summaries import Moments


@measure(
    invariant={"translation", "rotation", "row_order"CLAIM},
    sensitive={"linear", "unit_scale"},
    range=(0, math.inf),
    source="Trial & Error 2026, eq. 1",
    higher="more spread",
    undefined=(),
)
def trial_spread(moments: Moments) -> float:
    """The trial spread of the rows around their mean.

    Returns:
        A number from 0 upward.

    Raises:
        DegenerateInputError: the rows hold NaN or infinity, or their spread leaves the range of fp64.
        TooFewStimuliError: fewer than 2 rows.

    Source:
        Trial & Error, "A measure in one file", 2026, eq. 1.

    Cost:
        n d.

    Bias:
        None.

    Example:
        >>> import numpy as np, inscape as ix
        >>> ix.measures.trial_spread(np.array([[0.0], [2.0]]))
        1.0
    """
    return moments.trace / moments.n
'''

EVERYWHERE = """
import sys
from pathlib import Path

import numpy as np

import inscape as ix
from inscape.cli import main

here = Path(sys.argv[1])
assert Path(ix.__file__).is_relative_to(here), ix.__file__

import inscape.measures.trial_spread  # binds the submodule under the measure's name, until the registry is read
row = next(row for row in ix.measures.table() if row["name"] == "trial_spread")
assert row["what"] == "The trial spread of the rows around their mean."
assert row["source"] == "Trial & Error 2026, eq. 1"

X = np.random.default_rng(0).standard_normal((64, 3))
value = ix.measures.trial_spread(X)
assert abs(value - X.var(0).sum()) < 1e-12

assert main(["measures"]) == 0

result = ix.measure({"site": X}, "trial_spread")
page = here / "report.html"
ix.report(result, to=str(page))
text = page.read_text()
assert "The trial spread of the rows around their mean." in text
assert "Trial &amp; Error 2026" in text

sys.path.insert(0, sys.argv[2])
import generate
generate.measures(here / "docs")
assert "trial_spread" in (here / "docs" / "index.md").read_text()
assert (here / "docs" / "trial_spread.md").exists()
"""


def with_trial(folder: Path) -> dict[str, str]:
    """A copy of the package with one more file; the environment in which Python prefers it."""
    shutil.copytree(ROOT / "src" / "inscape", folder / "inscape", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "inscape" / "measures" / "trial_spread.py").write_text(TRIAL.replace("CLAIM", ""))
    return {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def test_a_measure_in_one_file_is_everywhere(tmp_path: Path) -> None:
    environment = with_trial(tmp_path)
    script = tmp_path / "everywhere.py"
    script.write_text(EVERYWHERE)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(ROOT / "docs")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "trial_spread" in done.stdout
    assert "The trial spread of the rows around their mean." in done.stdout


@pytest.mark.slow
def test_its_laws_are_generated_and_catch_a_false_claim(tmp_path: Path) -> None:
    environment = with_trial(tmp_path)
    false = TRIAL.replace("CLAIM", ', "scale"').replace("trial_spread", "trial_false")
    (tmp_path / "inscape" / "measures" / "trial_false.py").write_text(false)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", "tests/laws/test_measures.py", "-k", "trial"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert "test_claimed_invariance_holds[trial_false-scale]" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
    summary = done.stdout.strip().splitlines()[-1]
    assert summary.startswith("1 failed, "), summary
    assert int(summary.split(" passed")[0].split()[-1]) > 70, "both measures get all laws"
