"""`run_demo`: the one function behind `inscape demo`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inscape.arrays import threads
from inscape.demo.own import own_model
from inscape.demo.telling import Teller
from inscape.demo.tour import tour
from inscape.errors import StimuliError


def run_demo(
    out: str | os.PathLike[str] = "runs/demo",
    *,
    model: Any = None,
    texts: Any = None,
    seed: int = 0,
    small: bool = False,
    progress: Callable[[str], Any] = print,
) -> Path:
    """Shows what inscape does, and writes `report.html`, the results and the stores into a folder.

    Without a model it trains small networks (a digit classifier, two GPTs that differ in their seed, a recurrent network), watches what
    they represent come about, and compares them; about two minutes on two cores. With a model it reads your own texts with it.

    Args:
        out: the folder to write into; an earlier demo in it is replaced.
        model: a Hugging Face id, a folder or a loaded `Model` of text, in place of the zoo.
        texts: for `model`: a file (one text per line, or a table with a column "text") or a list; by default source code of Python itself.
        seed: of training and inference.
        small: networks, training and texts of a fraction of the size: for a first check, not for findings.
        progress: takes each line as it comes.

    Returns:
        The path of the report.

    Raises:
        StimuliError: texts without a model to read them.
        MissingExtraError: scikit-learn is not installed, which holds the digits.

    Example:
        >>> run_demo(small=True)    # doctest: +SKIP
        PosixPath('runs/demo/report.html')
    """
    if texts is not None and model is None:
        raise StimuliError(f"texts={texts!r} needs a model that reads them; pass model= too (an id, a folder or a loaded Model)")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    say = Teller(progress)
    if model is not None:
        report = own_model(folder, model, texts, seed=seed, small=small, say=say)
    else:
        with threads(1):  # matrices of width 64: a second thread costs more than it brings, most of all on a busy machine
            report = tour(folder, seed=seed, small=small, say=say)
    say(f"Done. Open {report} in a browser.")
    stores = [shlex.quote(str(path.parent)) for path in sorted(folder.glob("stores/*/manifest.json"))]
    say.plain("")
    say.plain("What to do next:")
    say.plain("  inscape measures")
    say.plain(f"  inscape measure {stores[0]} stable_rank isoscore")
    if len(stores) > 1:
        say.plain(f"  inscape compare {stores[0]} {stores[-1]} procrustes")
    if model is None:
        say.plain("  inscape demo --model ID_OR_FOLDER --texts FILE")
    return report
