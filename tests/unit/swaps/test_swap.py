"""Swaps of encoders against retrieval by full sorting."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import inscape as ix
from inscape.cli import main
from inscape.errors import ResultError, StimuliError, StoreMismatchError, TooFewStimuliError
from inscape.plots.swaps import swap_routes
from inscape.reporting.section import render
from inscape.results import Result
from inscape.swaps import Requirement, Swap
from inscape.swaps.search import nearest

RNG = np.random.default_rng(0)
N, M, D = 60, 300, 12
DOCS = RNG.standard_normal((M, D))
ANSWER = RNG.permutation(M)[:N]
ASKED = DOCS[ANSWER] + 0.5 * RNG.standard_normal((N, D))
TURN = np.linalg.qr(RNG.standard_normal((D, D)))[0]
OLD = (ASKED, DOCS)
NEW = tuple((rows + 0.3 * RNG.standard_normal(rows.shape)) @ TURN + 0.1 for rows in OLD)
KIND = np.array(["short", "long", "odd"])[RNG.integers(0, 3, N)]
QUERIES = {"id": [f"q{i}" for i in range(N)], "text": [f"question {i}" for i in range(N)], "kind": KIND.tolist()}
CORPUS = {"id": [f"d{i}" for i in range(M)], "text": [f"document {i}" for i in range(M)]}


def ranking(queries: np.ndarray, corpus: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, corpus))
    near = first @ second.T
    return np.argsort(-near, axis=1), np.sort(near, axis=1)[:, ::-1]


def found(**options) -> Swap:
    return ix.swap(OLD, NEW, QUERIES, CORPUS, ANSWER.tolist(), "kind", **options)


def test_recall_overlap_and_decisions_equal_full_sorting() -> None:
    result = found(k=(1, 5)).result
    (old, score_old), (new, score_new) = ranking(*OLD), ranking(*NEW)
    direct, _ = ranking(NEW[0], OLD[1])
    for name, places in (("old", old), ("new", new), ("direct", direct)):
        for k in (1, 5):
            hit = (places[:, :k] == ANSWER[:, None]).any(1)
            assert result.value(label=name, measure=f"recall@{k}", axis=None) == pytest.approx(hit.mean(), abs=1e-12)
            shared = [len(set(a[:k]) & set(b[:k])) / k for a, b in zip(places, old, strict=True)]
            assert result.value(label=name, measure=f"overlap@{k}", axis=None) == pytest.approx(np.mean(shared), abs=1e-12)
            for kind in set(KIND):
                row = result.where(label=name, measure=f"recall@{k}", axis="segment", at=kind).rows()[0]
                assert row["value"] == pytest.approx(hit[kind == KIND].mean(), abs=1e-12) and row["n"] == (kind == KIND).sum()
    best_old, best_new = score_old[:, 0], score_new[:, 0]
    bound = np.quantile(best_old, 0.1)
    assert result.settings["threshold"] == pytest.approx(bound, abs=1e-6)
    assert result.value(label="new", measure="inconsistency", axis=None) == pytest.approx(
        ((best_old >= bound) != (best_new >= bound)).mean()
    )
    assert result.value(label="new", measure="score_shift") == pytest.approx((best_new - best_old).mean() / best_old.std(), abs=1e-5)


def test_a_map_carries_new_queries_to_the_old_index() -> None:
    made = found(maps=("orthogonal", "ridge", "affine"))
    fitted = made.maps["affine"]
    places, _ = ranking(fitted.transform(NEW[0]).numpy(), OLD[1])
    hit = (places[:, :10] == ANSWER[:, None]).any(1).mean()
    assert made.result.value(label="affine", measure="recall@10", axis=None) == pytest.approx(hit, abs=1e-12)
    assert made.result.value(label="affine", measure="map_r2") == pytest.approx(fitted.score().value(measure="map_r2"), abs=1e-12)
    assert made.result.value(label="orthogonal", measure="recall@10", axis=None) > 0.8
    assert made.result.value(label="direct", measure="recall@10", axis=None) < 0.3
    assert fitted.d_a == D and fitted.info["a"] == "new/corpus"


def test_without_judgments_what_the_old_encoder_puts_first_is_the_answer() -> None:
    result = ix.swap(OLD, NEW, QUERIES, CORPUS).result
    (old, _), (new, _) = ranking(*OLD), ranking(*NEW)
    assert result.value(label="new", measure="recall@10") == pytest.approx((new[:, :10] == old[:, :1]).any(1).mean())
    assert result.value(label="old", measure="recall@1") == 1.0 and result.settings["relevant"] == "what the old encoder puts first"


def test_the_worst_queries_are_those_with_least_overlap() -> None:
    made = found()
    (old, _), (new, _) = ranking(*OLD), ranking(*NEW)
    overlap = np.array([len(set(a[:10]) & set(b[:10])) / 10 for a, b in zip(old, new, strict=True)])
    first = int(np.argsort(overlap, kind="stable")[0])
    assert made.worst[0] == {
        "query": f"q{first}", "overlap": overlap[first], "old_first": f"d{old[first, 0]}", "new_first": f"d{new[first, 0]}",
        "text": f"question {first}",
    }  # fmt: skip
    assert len(made.worst) == 10


@pytest.mark.parametrize(
    "judged",
    [
        {f"q{i}": [f"d{at}", f"d{(at + 1) % M}"] for i, at in enumerate(ANSWER)},
        [[int(at), int((at + 1) % M)] for at in ANSWER],
        {
            "query": [f"q{i}" for i in range(N) for _ in range(3)],
            "corpus": [f"d{(at + step) % M}" for at in ANSWER for step in range(3)],
            "score": [1, 1, 0] * N,
        },
    ],
)
def test_judgments_in_every_form(judged) -> None:
    result = ix.swap(OLD, NEW, QUERIES, CORPUS, judged).result
    new, _ = ranking(*NEW)
    both = np.stack([ANSWER, (ANSWER + 1) % M], 1)
    recall = np.mean([np.isin(new[i, :10], both[i]).sum() / 2 for i in range(N)])
    assert result.value(label="new", measure="recall@10") == pytest.approx(recall, abs=1e-12)


def test_queries_without_an_answer_do_not_count_and_are_told() -> None:
    made = ix.swap(OLD, NEW, QUERIES, CORPUS, {"q0": f"d{ANSWER[0]}"}, "kind", require="recall@10>=0.5")
    assert made.result.where(label="new", measure="recall@10", axis=None).rows()[0]["n"] == 1
    assert "59 queries have no relevant document" in made.reasons[-1]
    other = next(kind for kind in ("short", "long", "odd") if kind != KIND[0])
    row = made.result.where(label="new", measure="recall@10", axis="segment", at=other).rows()[0]
    assert row["status"] == "undefined"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recall@10>=0.95", ("new", "recall@10", ">=", 0.95, False, False)),
        ("ridge: overlap@5 > .8", ("ridge", "overlap@5", ">", 0.8, False, False)),
        ("recall@10 >= 0.98*old in segments", ("new", "recall@10", ">=", 0.98, True, True)),
        ("inconsistency<=1e-1", ("new", "inconsistency", "<=", 0.1, False, False)),
    ],
)
def test_requirements_are_read(text: str, expected: tuple) -> None:
    one = Requirement.of(text)
    assert (one.route, one.measure, one.sign, one.bound, one.of_old, one.each) == expected


def test_the_verdict_is_the_requirements() -> None:
    (old, _), (new, _) = ranking(*OLD), ranking(*NEW)
    recall = [(places[:, :1] == ANSWER[:, None]).any(1).mean() for places in (old, new)]
    assert 0 < recall[1] < recall[0] < 1
    for share, kept in ((recall[1] / recall[0] - 0.01, True), (recall[1] / recall[0] + 0.01, False)):
        made = found(require=f"recall@1>={share:.6f}*old")
        assert made.ok is kept and made.result.settings["ok"] is kept
        assert ("yes, all 1" if kept else "no, 1 of 1") in made.verdict
        assert made.reasons[0].startswith("holds: new: recall@1 =" if kept else "FAILS: new: recall@1 =")
    both = found(require=["recall@10>=0.5", "recall@10>=0.99 in segments"])
    worst = min((new[kind == KIND, :10] == ANSWER[kind == KIND, None]).any(1).mean() for kind in set(KIND))
    assert both.ok is bool(worst >= 0.99)
    assert any("orthogonal" in reason and "without a new index" in reason for reason in found(require="recall@10>=0.5").reasons)
    assert found().ok is None and "no verdict" in found().verdict


def test_other_widths_leave_the_direct_route_out_and_say_so() -> None:
    narrow = tuple(rows[:, :5] for rows in NEW)
    made = ix.swap(OLD, narrow, QUERIES, CORPUS, maps=("affine",))
    row = made.result.where(label="direct", measure="recall@10").rows()[0]
    assert row["status"] == "undefined" and "12 units" in row["reason"]
    few = ix.swap((ASKED, DOCS[:14]), (NEW[0], NEW[1][:14]), QUERIES, CORPUS["text"][:14], maps=("affine",))
    assert "fits anything" in few.result.where(label="affine", measure="recall@10").rows()[0]["reason"]
    with pytest.raises(ResultError, match="about 'recall@10' of the route 'canonical'"):
        found(require="canonical:recall@10>=0.5")
    assert ix.swap(OLD, narrow, QUERIES, CORPUS, require="direct:recall@10>=0.5").ok is False


def test_functions_and_stores_are_encoders_too() -> None:
    vectors = {
        text: row for texts, rows in ((QUERIES["text"], NEW[0]), (CORPUS["text"], NEW[1])) for text, row in zip(texts, rows, strict=True)
    }

    def encode(texts: list[str]) -> np.ndarray:
        return np.stack([vectors[text] for text in texts])

    order = RNG.permutation(N + M)
    rows = np.concatenate(OLD)[order]
    names = np.array([*QUERIES["id"], *CORPUS["id"]])[order]
    store = ix.Store.from_arrays({"v": rows}, stimuli={"stimulus": names.tolist()}, system="kept")
    made = ix.swap(store, encode, QUERIES, CORPUS, ANSWER.tolist())
    assert made.result.unique("system") == ["kept/v"] and made.result.unique("system_b") == ["encode"]
    for measure in ("recall@1", "overlap@10"):
        assert made.result.value(label="new", measure=measure) == found().result.value(label="new", measure=measure, axis=None)


def test_faiss_finds_what_full_sorting_finds() -> None:
    places, scores = ranking(*OLD)
    for engine in ("exact", "faiss"):
        got, at = nearest(torch.from_numpy(ASKED), torch.from_numpy(DOCS), 7, engine=engine)
        assert np.array_equal(at, places[:, :7]) and np.allclose(got, scores[:, :7], atol=1e-6)
    near = ASKED.astype(np.float32) @ DOCS.astype(np.float32).T
    assert np.array_equal(nearest(torch.from_numpy(ASKED), torch.from_numpy(DOCS), 3, metric="dot")[1], np.argsort(-near, 1)[:, :3])


def test_equal_documents_come_in_their_order() -> None:
    corpus = torch.eye(3).repeat(30, 1)
    _, at = nearest(torch.eye(3), corpus, 4)
    assert at.tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((OLD, (ASKED[:5], DOCS), QUERIES, CORPUS), {}, StoreMismatchError, "5 vectors for 60 queries"),
        ((OLD, 3, QUERIES, CORPUS), {}, StoreMismatchError, "new is int"),
        ((OLD, (ASKED[:, :4], DOCS), QUERIES, CORPUS), {}, StoreMismatchError, "4 units, the corpus 12"),
        ((OLD, NEW, QUERIES, CORPUS, ["d0"]), {}, StimuliError, "1 entries for 60 queries"),
        ((OLD, NEW, QUERIES, CORPUS, {"q99": "d1"}), {}, StimuliError, "'q99'"),
        ((OLD, NEW, QUERIES, CORPUS, {"q1": "x1"}), {}, StimuliError, "'x1'"),
        ((OLD, NEW, QUERIES, CORPUS, [999] * N), {}, StimuliError, "document 999, but the corpus has 300"),
        ((OLD, NEW, QUERIES, CORPUS, None, ["a"]), {}, StimuliError, "one label each"),
        ((OLD, NEW, QUERIES, CORPUS), {"require": "recall of 10"}, ResultError, "cannot read the requirement"),
        ((OLD, NEW, QUERIES, CORPUS), {"require": "recall@3>=0.5"}, ResultError, "recall@3"),
        ((OLD, NEW, QUERIES, CORPUS), {"k": 0}, ResultError, "at least 1"),
        ((OLD, NEW, QUERIES, CORPUS), {"metric": "l2"}, StoreMismatchError, "metric='l2'"),
        (((ASKED[:1], DOCS), (ASKED[:1], DOCS), ["one"], CORPUS), {}, TooFewStimuliError, "1 queries"),
    ],
)
def test_what_cannot_be_told_is_said(arguments, options, error, text) -> None:
    with pytest.raises(error, match=text):
        ix.swap(*arguments, **options)


def test_it_has_a_figure_and_a_section(tmp_path) -> None:
    made = found(require="recall@10>=0.5")
    assert [ax.get_title(loc="left") for ax in made.plot().axes] == ["recall@10", "overlap@10", "scores", "recall@10 by segment"]
    again = Result.load(made.result.save(tmp_path / "swap"))
    assert len(swap_routes(again, k=1).axes) == 4
    section = render(again, "r")
    assert section.title == "May new take the place of old?" and "yes, all 1 requirements hold" in section.findings[0].text
    assert "question" in section.body and "<svg" in section.body
    with pytest.raises(ResultError, match="nothing to draw"):
        swap_routes(Result([{"measure": "two_nn", "value": 1.0}]))
    assert "recall@10" in str(made) and "queries that lose most" in str(made)


def test_the_command_answers_with_its_exit_code(tmp_path, capsys) -> None:
    for name, (queries, corpus) in (("old", OLD), ("new", NEW)):
        ids = [*QUERIES["id"], *CORPUS["id"]]
        ix.Store.from_arrays({"v": np.concatenate([queries, corpus])}, stimuli={"stimulus": ids}, to=tmp_path / name, system=name)
    import pandas as pd

    pd.DataFrame({**QUERIES, "answer": [f"d{at}" for at in ANSWER]}).to_csv(tmp_path / "queries.csv", index=False)
    pd.DataFrame(CORPUS).to_csv(tmp_path / "corpus.csv", index=False)
    line = ["swap", str(tmp_path / "old"), str(tmp_path / "new"), "--queries", str(tmp_path / "queries.csv"), "--corpus"]
    line += [str(tmp_path / "corpus.csv"), "--relevant", "answer", "--segment", "kind"]
    assert main([*line, "--require", "recall@10>=0.5", "--out", str(tmp_path / "swap")]) == 0
    told = capsys.readouterr().out
    assert "yes, all 1 requirements hold" in told and told.rstrip().splitlines()[-1].startswith("inscape report")
    assert Result.load(tmp_path / "swap").settings["ok"] is True
    assert main([*line, "--require", "recall@1>=0.9999", "--json"]) == 4
    assert '"ok": false' in capsys.readouterr().out
    assert main([*line, "--require", "recall"]) == 2
    assert "cannot read the requirement" in capsys.readouterr().err
