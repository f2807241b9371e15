"""Bad input: one clean message on the error stream, the right exit code, and what to do next."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest

from inscape.cli.arguments import memory_text, number_or_word, read_measures
from inscape.cli.output import UsageError, command_line
from inscape.errors import StoreIncompleteError


def test_an_unknown_measure_is_misspelled_and_gets_the_nearest_names(inscape, stores):
    ran = inscape("measure", "a", "effectiv_rank")
    assert ran.code == 2
    assert ran.out == ""
    assert (
        "there is no measure 'effectiv_rank'; the nearest: 'effective_rank', 'parameter_effective_rank', 'effective_rank_covariance'"
        in ran.err
    )
    assert ran.err.rstrip().splitlines()[-1] == "inscape measures"
    assert "Traceback" not in ran.err
    assert inscape("measures", "linear_ckaa").code == 2


def test_a_measure_of_a_pair_is_not_one_of_a_system(inscape, stores):
    ran = inscape("measure", "a", "linear_cka")
    assert ran.code == 2
    assert "'linear_cka' is a measure of a pair" in ran.err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["measure", "a", "two_nn", "--foo"], "Unknown option: --foo"),
        (["measure", "a"], "no measure was named; give one or several"),
        (["measure"], "requires an argument"),
        (["nonsense"], "nonsense"),
        (["measure", "a", "mutual_knn(q=2)"], "mutual_knn has no option 'q'"),
        (["measure", "a", "mutual_knn(k=__import__('os'))"], "cannot read the options of"),
        (["measure", "a", "two_nn)("], "as a measure; write a name"),
        (["measure", "a", "two_nn", "--memory", "lots"], "cannot read 'lots' as an amount of memory"),
        (["report"], "no result was named"),
    ],
)
def test_misspelled_commands_exit_with_two(inscape, stores, argv, message):
    ran = inscape(*argv)
    assert ran.code == 2
    assert message in ran.err
    assert "Traceback" not in ran.err + ran.out
    assert ran.err.rstrip().splitlines()[-1].startswith("inscape")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["measure", "nowhere", "two_nn"], "nowhere"),
        (["measure", "a", "two_nn", "--sites", "layr1"], "nearest: 'layer1'"),
        (["report", "nowhere"], "nowhere is no saved result and no store: there is no such folder"),
        (["report", "."], "it has neither settings.json nor manifest.json"),
        (["verify", "nowhere"], "there is no such folder"),
    ],
)
def test_refusals_exit_with_one(inscape, stores, argv, message):
    ran = inscape(*argv)
    assert ran.code == 1
    assert message in ran.err and ran.err.startswith("inscape: ")


def test_an_incomplete_store_exits_with_three(inscape, stores, monkeypatch):
    def unfinished(*args, **kwargs):
        raise StoreIncompleteError("3 of 9 shards are there; run the capture again")

    monkeypatch.setattr("inscape.store.open", unfinished)
    ran = inscape("measure", "a", "two_nn")
    assert ran.code == 3
    assert ran.err == "inscape: 3 of 9 shards are there; run the capture again\n"


def test_an_interrupted_capture_exits_with_three_and_its_own_command(inscape, stores, monkeypatch):
    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("inscape.models.load", stopped)
    ran = inscape("capture", "gpt2", "my texts.txt", "--to", "runs/x")
    assert ran.code == 3
    assert ran.err == "inscape: interrupted\ninscape capture gpt2 'my texts.txt' --to runs/x\n"


def test_errors_are_json_too(inscape, stores):
    ran = inscape("measure", "a", "effectiv_rank", "--json")
    content = json.loads(ran.out)
    assert content["error"] == "UnknownMeasureError" and content["exit_code"] == 2 and content["next"] == "inscape measures"
    assert ran.err.startswith("inscape: ")


def test_arguments_are_read_without_running_them():
    chosen = read_measures(["two_nn", "mutual_knn(k=20)"])
    assert [measure.label for measure in chosen] == ["two_nn", "mutual_knn(k=20)"]
    assert [number_or_word(text) for text in ("12", "-1", "mean", "none", None)] == [12, -1, "mean", None, None]
    assert memory_text("512MiB") == "512MiB"
    with pytest.raises(UsageError, match="cannot read the options of 'mutual_knn\\(20\\)'"):
        read_measures(["mutual_knn(20)"])


def test_a_command_line_can_be_pasted_into_a_shell():
    assert command_line("measure", "my runs/gpt", seed=1, null=None, json=True) == "inscape measure 'my runs/gpt' --seed 1 --json"


def test_help_is_light():
    code = (
        "import sys\nfrom inscape.cli import main\nassert main(['--help']) == 0\n"
        "loaded = {'torch', 'matplotlib', 'transformers', 'pyarrow', 'numpy', 'scipy', 'ray'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0  # the goal is 0.5 s on an idle machine


@pytest.mark.slow
def test_python_m_inscape_is_the_command():
    ran = subprocess.run([sys.executable, "-m", "inscape", "verify", "/nowhere"], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith("inscape: /nowhere is no saved result and no store")
