"""The command line: argument text to one public function each.

Commands are named by text and imported when they run, so `inscape --help` loads neither torch nor matplotlib.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from inscape import __version__
from inscape.cli.output import UsageError
from inscape.errors import InscapeError, StoreIncompleteError, UnknownMeasureError

OK, FAILED, USAGE, INCOMPLETE = 0, 1, 2, 3

_EPILOGUE = "Exit codes: 0 done, 1 failed or refused, 2 misspelled, 3 incomplete (the same command resumes), 4 out of range or refused."
_COMMANDS = {
    "demo": "Train tiny models, or take yours, and write a first report.",
    "sites": "List what can be read in a model.",
    "capture": "Run a model over stimuli and write a store; run again, it resumes.",
    "plan": "Tell what a measurement will cost, without running it.",
    "measure": "Measure every site of a store.",
    "compare": "Compare the sites of two stores.",
    "decompose": "Fit a dictionary to a place in a model; run again, it resumes.",
    "features": "Tell what the features of a dictionary are active on.",
    "swap": "Tell whether a new encoder may take an old one's place.",
    "health": "Tell whether a model's layers look like those of models that work.",
    "measures": "List the measures, or explain one.",
    "trajectory": "Measure the checkpoints of a training run.",
    "watch": "Show what a monitor logs while a model trains.",
    "report": "Write one page from saved results.",
    "verify": "Check every file of a store against its sum.",
}

app = App(
    name="inscape",
    help="See, compare, explain and change what neural networks represent.",
    help_epilogue=_EPILOGUE,
    version=__version__,
    suppress_keyboard_interrupt=False,
)
for _name, _help in _COMMANDS.items():
    app.command(f"inscape.cli.{_name}:{_name}", name=_name, help=_help)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; never raises for what a user can cause.

    Args:
        argv: the arguments after the program's name; by default those of this process.

    Example:
        >>> main(["--version"])    # doctest: +SKIP
        0.1.0
        0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (CycloptsError, UsageError, UnknownMeasureError) as error:
        return _told(error, arguments, USAGE)
    except StoreIncompleteError as error:
        return _told(error, arguments, INCOMPLETE)
    except (InscapeError, OSError) as error:
        return _told(error, arguments, FAILED)
    except KeyboardInterrupt:
        return _told("interrupted", arguments, INCOMPLETE)
    except SystemExit as leaving:  # cyclopts leaves this way after --help and --version
        return int(leaving.code or 0)
    return code if isinstance(code, int) else OK


def _told(error: BaseException | str, arguments: list[str], code: int) -> int:
    """One clean message on the error stream, for --json also one object on the output, and what to do next."""
    from inscape.cli.output import command_line, fail

    command = arguments[0] if arguments and arguments[0] in _COMMANDS else ""
    following = {
        USAGE: f"inscape {command} --help".replace("  ", " "),
        INCOMPLETE: command_line(*arguments) if command == "capture" else "",
    }.get(code, "")
    if isinstance(error, UnknownMeasureError):
        following = "inscape measures"
    kind = "interrupted" if isinstance(error, str) else type(error).__name__
    fail(str(error), kind=kind, code=code, following=following, as_json="--json" in arguments)
    return code
