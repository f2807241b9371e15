"""`inscape swap`: whether a new encoder may take an old one's place."""

from __future__ import annotations

from inscape.cli.arguments import number_or_word
from inscape.cli.output import Json, UsageError, command_line, say

FAILS = 4


def swap(
    old: str,
    new: str,
    /,
    *,
    queries: str,
    corpus: str,
    relevant: str | None = None,
    segment: str | None = None,
    require: list[str] | None = None,
    k: list[int] | None = None,
    maps: str = "orthogonal,ridge",
    site: str = "embedding",
    tokens: str | None = None,
    metric: str = "cosine",
    threshold: float | None = None,
    sample: int = 5000,
    search: str = "exact",
    interval: str = "auto",
    out: str | None = None,
    seed: int = 0,
    json: Json = False,
) -> int:
    """Tell whether a new encoder may take an old one's place. The exit code is 4 where a requirement fails.

    Args:
        old: the encoder in use: a Hugging Face id or folder, or the folder of a store that holds queries and corpus by id.
        new: the other one.
        queries: file with a text a line, or a table with a column of texts (and ids, segments).
        corpus: the documents, likewise.
        relevant: column of the queries with the document's id, or a table with the columns query and corpus.
        segment: column of the queries by which the numbers are also told.
        require: what must hold, as recall@10>=0.95 or recall@10>=0.98*old; may be given several times.
        k: how many documents count; may be given several times.
        maps: methods of align to try on the old index, with commas; none for none.
        site: where a model holds its vectors.
        tokens: mean, last or first, for a site that has a row for each token.
        metric: cosine or dot.
        threshold: the score from which a best document is accepted today.
        sample: documents that maps are fitted on, at most.
        search: exact or faiss.
        interval: auto, jackknife, a number of groups, or none.
        out: folder to save the numbers in, as a result.
        seed: of samples and groups.
        json: print JSON.
    """
    from inscape.errors import ResultError
    from inscape.swaps import Requirement
    from inscape.swaps import swap as run

    try:
        for text in require or ():
            Requirement.of(text)
    except ResultError as error:
        raise UsageError(str(error)) from error
    found = run(
        old,
        new,
        queries,
        corpus,
        relevant,
        segment,
        require=require or (),
        k=k or (1, 10),
        maps=() if maps == "none" else tuple(name.strip() for name in maps.split(",") if name.strip()),
        site=site,
        tokens=tokens,
        metric=metric,
        threshold=threshold,
        sample=sample,
        search=search,
        interval=number_or_word(interval),
        seed=seed,
    )
    if out is not None:
        found.result.save(out)
    payload = {"ok": found.ok, "verdict": found.verdict, "reasons": list(found.reasons), "worst": list(found.worst)}
    payload |= {"rows": found.result.rows(), "settings": found.result.settings, "out": out}
    again = command_line("swap", old, new, queries=queries, corpus=corpus, out="runs/swap")
    following = command_line("report", out, to=f"{out}.html") if out else again
    say(str(found), payload, following=following, as_json=json)
    return FAILS if found.ok is False else 0
