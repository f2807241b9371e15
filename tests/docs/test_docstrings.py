"""The examples in the docstrings of public names run and print what they say."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def _api():
    spec = importlib.util.spec_from_file_location("inscape_public_api", HERE.parent / "arch" / "api.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def examples() -> list[tuple[str, str]]:
    """Every public name, and every member of a public class, whose docstring has an example."""
    found: list[tuple[str, str]] = []
    for path, value in _api().public().items():
        if not callable(value):
            continue
        parts = [(path, inspect.getdoc(value))]
        if inspect.isclass(value):
            parts += [(f"{path}.{name}", inspect.getdoc(getattr(value, name, None))) for name in vars(value) if not name.startswith("_")]
        found += [(name, doc) for name, doc in parts if doc and ">>>" in doc]
    return found


class Shown(doctest.OutputChecker):
    """An example that prints nothing shows how a thing is called: it must run, whatever comes out."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


@pytest.mark.slow
def test_examples_run(page_folder: Path):
    import numpy as np
    import pyarrow as pa
    import torch

    import inscape as ix

    texts = (page_folder / "sentences.txt").read_text().splitlines()
    table = {"text": texts, "category": [text.split()[0] for text in texts]}
    store = ix.capture("gpt2", table, tokens="last", to="runs/gpt2")
    rng = np.random.default_rng(0)
    given = {"inscape": ix, "ix": ix, "np": np, "torch": torch, "Path": Path, "texts": texts, "table": table, "store": store}
    given |= {"view": store["blocks.6.resid_post"], "X": rng.standard_normal((64, 8)), "Y": rng.standard_normal((64, 5))}
    given |= {
        "labels": [i % 3 for i in range(64)],
        "fold_of_row": np.arange(64) % 4,
        "ids": np.arange(64),
        "names": [f"s{i}" for i in range(64)],
    }
    given |= {"v": torch.ones(36), "direction": torch.ones(36), "update": lambda moments, values: moments.update(values)}
    given |= {"index": pa.table({"stimulus": [0, 1], "repeat": [0, 0], "position": [0, 0]}), "values": torch.ones(2, 4)}
    given |= {"runs": {1: "gpt2", 2: "pythia"}}
    given |= {"dictionary": ix.decompose(given["X"], ix.dictionaries.TopK(width=16, k=2), rows=1024)}
    wrong: list[str] = []
    for name, doc in examples():
        parts = name.split(".")
        home = next(sys.modules[room] for end in range(len(parts) - 1, 0, -1) if (room := ".".join(parts[:end])) in sys.modules)
        names = {**given, "model": ix.load("gpt2"), **{key: getattr(home, key) for key in getattr(home, "__all__", ())}}
        test = doctest.DocTestParser().get_doctest(doc, names, name, None, 0)
        said: list[str] = []
        runner = doctest.DocTestRunner(Shown(), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
        runner.run(test, out=said.append)
        if runner.failures:
            wrong.append("".join(said))
    assert not wrong, f"{len(wrong)} examples do not hold:\n" + "\n".join(wrong)
