"""Each command: what it prints, what it writes, and the next command on its last line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inscape.results import Result
from inscape.store import Store


def test_help_lists_every_command_in_one_line_each(inscape):
    ran = inscape("--help")
    assert ran.code == 0
    for text in (
        "Usage: inscape COMMAND",
        "│ capture      Run a model over stimuli and write a store; run again, it",
        "│ compare      Compare the sites of two stores.",
        "│ decompose    Fit a dictionary to a place in a model; run again, it resumes.",
        "│ demo         Train tiny models, or take yours, and write a first report.",
        "│ features     Tell what the features of a dictionary are active on.",
        "│ measure      Measure every site of a store.",
        "│ measures     List the measures, or explain one.",
        "│ plan         Tell what a measurement will cost, without running it.",
        "│ report       Write one page from saved results.",
        "│ sites        List what can be read in a model.",
        "│ watch        Show what a monitor logs while a model trains.",
        "│ verify       Check every file of a store against its sum.",
        "Exit codes: 0 done, 1 failed or refused, 2 misspelled, 3 incomplete",
    ):
        assert text in ran.out


@pytest.mark.parametrize(
    "command", "demo sites capture plan measure compare decompose features measures report trajectory verify watch".split()
)
def test_every_command_explains_itself(inscape, command):
    ran = inscape(command, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: inscape {command}")
    assert "--json" in ran.out and "--no-json" not in ran.out


def test_version(inscape):
    from inscape import __version__

    ran = inscape("--version")
    assert (ran.code, ran.out.strip()) == (0, __version__)


def test_measure_prints_saves_and_points_to_the_report(inscape, stores):
    ran = inscape("measure", "a", "participation_ratio", "--interval", "none", "--out", "prof")
    assert ran.code == 0
    X = Store_rows("a", "layer1")
    spectrum = np.linalg.eigvalsh(np.cov(X.T))
    expected = spectrum.sum() ** 2 / (spectrum**2).sum()
    saved = Result.load("prof")
    assert saved.value(site="layer1") == pytest.approx(expected, rel=1e-9)
    lines = ran.out.splitlines()
    assert lines[0] == "Result: 3 rows, 1 measure, 3 sites, 1 without a number"
    assert lines[1].split() == ["site", "measure", "value", "n"]
    assert lines[2].split() == ["layer1", "participation_ratio", f"{expected:.2f}", "60"]
    assert "degenerate: participation_ratio: " in lines[4]
    assert ran.last == "inscape report prof --to prof.html"
    assert saved.settings["command"] == "inscape measure a participation_ratio --out prof --interval none"


def Store_rows(path, site):
    from inscape.store import open as open_store

    return np.asarray(open_store(path)[site].numpy(), dtype=float)


def test_measure_takes_sites_labels_and_options_in_brackets(inscape, stores):
    ran = inscape("measure", "a", "class_separation", "--sites", "layer1", "--labels", "label", "--interval", "none", "--json")
    rows = json.loads(ran.out)["rows"]
    X = Store_rows("a", "layer1")
    cats, dogs = X[::2], X[1::2]
    between = 30 * ((cats.mean(0) - X.mean(0)) ** 2).sum() + 30 * ((dogs.mean(0) - X.mean(0)) ** 2).sum()
    within = ((cats - cats.mean(0)) ** 2).sum() + ((dogs - dogs.mean(0)) ** 2).sum()
    assert [row["site"] for row in rows] == ["layer1"]
    assert rows[0]["value"] == pytest.approx(between / within, rel=1e-9)
    ran = inscape("measure", "a", "mle_dimension(k=5)", "--sites", "layer1", "--interval", "none", "--json")
    assert json.loads(ran.out)["rows"][0]["measure"] == "mle_dimension(k=5)"


def test_json_holds_the_same_and_the_next_command(inscape, stores):
    ran = inscape("measure", "a", "stable_rank", "--interval", "none", "--json")
    content = json.loads(ran.out)
    assert list(content) == ["rows", "settings", "out", "next"]
    assert content["rows"][2]["status"] == "degenerate" and content["rows"][2]["value"] is None
    assert content["next"] == "inscape measure a stable_rank --interval none --out runs/result"


def test_not_one_number_is_a_failure(inscape, stores):
    ran = inscape("measure", "a", "stable_rank", "--sites", "layer3")
    assert ran.code == 1


def test_compare_two_stores(inscape, stores):
    ran = inscape("compare", "a", "b", "linear_cka", "--interval", "none", "--out", "sim")
    assert ran.code == 0
    X, Y = Store_rows("a", "layer1"), Store_rows("b", "layer1")
    X, Y = X - X.mean(0), Y - Y.mean(0)
    expected = np.linalg.norm(Y.T @ X) ** 2 / (np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y))
    assert Result.load("sim").value(site="layer1") == pytest.approx(expected, rel=1e-9)
    assert ran.last == "inscape report sim --to sim.html"


def test_compare_a_store_with_itself(inscape, stores):
    ran = inscape("compare", "a", "a", "linear_cka", "--pairs", "diagonal", "--interval", "none", "--json")
    content = json.loads(ran.out)
    assert content["rows"][0]["value"] == pytest.approx(1.0)
    assert content["settings"]["command"] == "inscape compare a a linear_cka --pairs diagonal --interval none"


def test_plan_tells_the_cost_and_runs_nothing(inscape, stores):
    ran = inscape("plan", "a", "effective_rank")
    assert ran.code == 0
    assert ran.out.splitlines()[0].split() == ["step", "route", "memory", "multiply-adds", "passes"]
    assert "memory allowed 4.0 GB" in ran.out
    assert ran.last == "inscape measure a effective_rank --out runs/result"
    pair = inscape("plan", "a", "linear_cka", "--against", "b", "--json")
    assert json.loads(pair.out)["next"] == "inscape compare a b linear_cka --out runs/result"


def test_measures_lists_all_by_what_they_take(inscape):
    from inscape import measures

    ran = inscape("measures")
    text = ran.out
    assert text.index("Of one system\n") < text.index("Of one system with labels\n") < text.index("Of a pair\n")
    for name in measures.names():
        assert f"\n  {name} " in text
    assert text.index("Of a pair") < text.index("  linear_cka_debiased")
    assert max(len(line) for line in text.splitlines()) <= 100
    assert [row["name"] for row in json.loads(inscape("measures", "--json").out)["measures"]] == measures.names()


def test_measures_explains_one(inscape):
    ran = inscape("measures", "mutual_knn")
    lines = ran.out.splitlines()
    assert lines[0] == "mutual_knn"
    assert "  of            a pair" in lines
    assert "  range         0 to 1" in lines
    assert "  higher        more similar" in lines
    assert "  options       k=10" in lines
    assert any(line.startswith("  source        Huh et al. 2024") for line in lines)
    assert ran.last == "inscape compare STORE_A STORE_B mutual_knn"


def test_report_from_results_and_stores(inscape, stores):
    inscape("measure", "a", "stable_rank", "--interval", "none", "--out", "prof")
    ran = inscape("report", "prof", "a", "--to", "out/page.html", "--title", "Mine")
    assert ran.code == 0
    page = (stores / "out" / "page.html").read_text()
    assert "<title>Mine</title>" in page and "inscape measure a stable_rank --out prof --interval none" in page
    assert ran.out.splitlines()[0].startswith("out/page.html (")
    assert ran.last == "python -m webbrowser out/page.html"


def test_verify_a_store_and_a_result(inscape, stores):
    ran = inscape("verify", "a")
    assert (ran.code, ran.out.splitlines()[0]) == (0, "a: 1 shards of 3 sites, every sum as recorded")
    assert ran.last == "inscape measure a effective_rank two_nn"
    inscape("measure", "a", "stable_rank", "--interval", "none", "--out", "prof")
    assert inscape("verify", "prof").out.splitlines()[0] == "prof: a result of 3 rows, readable"


def test_verify_names_a_damaged_file(inscape, stores):
    shard = next((stores / "a" / "shards" / "layer1").glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(bytes(data))
    ran = inscape("verify", "a")
    assert ran.code == 1
    assert shard.name in ran.out


def test_stores_keep_the_labels_of_their_systems(inscape, stores):
    ran = inscape("compare", "a", "b", "linear_cka", "--interval", "none", "--json")
    assert {(row["system"], row["system_b"]) for row in json.loads(ran.out)["rows"]} == {("net-a", "net-b")}
    assert Store.from_arrays({"x": np.eye(2)}).system  # a store without a label has one all the same


@pytest.mark.parametrize("as_json", [False, True])
def test_demo_passes_its_options_and_its_story_on(inscape, stores, monkeypatch, as_json):
    taken = {}

    def told(out, *, progress, **options):
        taken.update(options, out=out)
        progress("[ 1 s] → something was found")
        progress("  inscape measures")
        page = stores / "report.html"
        page.write_text("<html>")
        return page

    monkeypatch.setattr("inscape.demo.run_demo", told)
    ran = inscape("demo", "--model", "gpt2", "--texts", "mine.txt", "--small", *(["--json"] if as_json else []))
    assert ran.code == 0
    assert taken == {"out": "runs/demo", "model": "gpt2", "texts": "mine.txt", "seed": 0, "small": True}
    if as_json:
        assert json.loads(ran.out) == {"report": str(stores / "report.html"), "bytes": 6, "next": "inscape measures"}
        assert "something was found" in ran.err
    else:
        assert ran.out == "[ 1 s] → something was found\n  inscape measures\n"
