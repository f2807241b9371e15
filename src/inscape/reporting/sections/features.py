"""The section of features: an index that sorts without a script, and for each feature a fold with its shaded examples."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from html import escape

import numpy as np
from matplotlib.figure import Figure

from inscape.dictionaries.reading.card import STYLE, example_html, feature_html, ranked
from inscape.dictionaries.reading.features import Feature, Features
from inscape.plots.features import feature_map
from inscape.reporting.cautions import cautions_of
from inscape.reporting.parts import figure, folded, result_table
from inscape.reporting.section import Finding, Section, section
from inscape.reporting.words import count
from inscape.results import format_number, format_parts

# Bytes of folded pages, beside which the rest of a report has room; features past them stand in the index alone.
PAGES = 900_000
INDEX = 1_000
_EXAMPLES = 5
_NAMED = 4
# What to order by, the name of its style, and how a reader is told.
_SORTS = (
    ("detection", "t", "how well it is told"),
    ("density", "o", "how often it is active"),
    ("largest", "l", "largest activation"),
    ("feature", "n", "number"),
)


@section("features")
def features_section(features: Features, name: str) -> Section:
    """How many features are active, how well they are told, the clearest by name, then all of them."""
    result, settings = features.result, features.settings
    mine = ranked(features, INDEX)
    density = features.column("density")
    active = density[density > 0]
    dead = len(density) - len(active)
    where = f"{escape(str(settings['site']))} of {escape(str(settings['system']))}"
    findings: list[Finding] = []
    if mine:
        text = f"<b>{len(active):,}</b> of {count(len(features), 'feature')} are active at {where}; half of them in more than "
        text += f"<b>{format_number(100 * float(np.median(active)), 2)} %</b> of the rows."
        findings.append(Finding(text, f"{settings['dictionary']} · n = {settings['n']:,}", weight=0.7))
    scored = [row for row in result.rows() if row["measure"] == "detection"]
    if scored:
        value, interval = format_parts(scored[0])
        told = int((~np.isnan(features.column("detection").astype(float))).sum())
        text = "A short description from words alone tells passages in which a feature is active from others with accuracy "
        text += f"<b>{value}</b>{f' <span class=ci>{interval}</span>' if interval else ''}, on average over {told:,} features."
        findings.append(Finding(text, "detection on passages that the description was not made from · chance 0.5", weight=0.65))
        clear = [one for one in mine if (one.facts.get("detection") or 0.0) >= 0.9 and len(one.description or "") < 60][:_NAMED]
        if clear:
            named = "; ".join(f'<a href="#{name}f{one.index}">{one.index}</a> {escape(one.description or "")}' for one in clear)
            findings.append(Finding(f"Among the clearest features are {named}.", "each with its examples below", weight=0.6))
    body = (
        _figure(features, name)
        + _index(mine, name, len(active))
        + (f"<p class=note>{count(dead, 'feature')} never active here.</p>" if dead else "")
    )
    body += folded(f"All {len(result):,} numbers", result_table(result))
    title = str(settings.get("title") or f"Features of {settings['system']} at {settings['site']}")
    return Section(title, tuple(findings), tuple(cautions_of(result)), body, ())


def _figure(features: Features, name: str) -> str:
    if not (features.column("density") > 0).any():
        return ""
    drawn = figure(
        partial(_draw, features),
        name=f"{name}-f",
        alt="features by how often they are active and how well their description tells when",
        caption="Detection: the share of passages for which the description tells rightly whether the feature is active in them, half of "
        "them being active. Rare features lie at the left.",
    )
    return f'<div class="figures wide">{drawn}</div>'


def _draw(features: Features, theme: str) -> Figure:
    return feature_map(features.result, theme=theme)


def _index(shown: Sequence[Feature], name: str, active: int) -> str:
    orders = {key: _order([_value(one, key) for one in shown]) for key, _, _ in _SORTS}
    pages: dict[int, str] = {}
    room = PAGES
    for one in shown:
        page = feature_html(one, most=_EXAMPLES, kinds=("top", "quantile", "random"), anchor=f"{name}f")
        room -= len(page.encode())
        if room < 0:
            break
        pages[one.index] = page
    items: list[str] = []
    largest = max((one.density or 0.0 for one in shown), default=1.0)
    for place, one in enumerate(shown):
        style = ";".join(f"--{short}:{orders[key][place]}" for key, short, _ in _SORTS)
        line = _line(one, largest)
        if one.index in pages:
            items.append(f'<details style="{style}"><summary>{line}</summary><div id={name}f{one.index}>{pages[one.index]}</div></details>')
        else:
            items.append(f'<div class=only style="{style}">{line}</div>')
    radios = "".join(
        f"<label><input type=radio name={name}sort class=by-{short}{' checked' if key == 'detection' else ''}> {told}</label>"
        for key, short, told in _SORTS
    )
    note = ""
    if len(pages) < active:
        listed = f"{len(shown):,} of {active:,} active features are listed, " if len(shown) < active else ""
        note = f"<p class=note>{listed}{len(pages):,} open with their examples; report on features.select([…]) to see others.</p>"
    head = "<div class=line><span class=r>no.</span><span>active on</span><span>share of rows</span><span class=r>told</span></div>"
    return (
        f"<style>{STYLE}{_CSS}</style><div class=findex><fieldset><legend>Order by</legend>{radios}</fieldset>"
        f"<div class=items>{head}{''.join(items)}</div></div>{note}"
    )


def _line(one: Feature, largest: float) -> str:
    """Number, description with its strongest passage, a bar for the density, the score."""
    share = (one.density or 0.0) / max(largest, 1e-12)
    best = one.examples["top"][:1]
    scale = max((abs(value) for example in best for value in example.activations), default=0.0)
    passage = f'<span class="feature once">{"".join(example_html(example, scale) for example in best)}</span>'
    score = one.facts.get("detection")
    told = "–" if score is None or np.isnan(score) else f"{score:.2f}"
    width = max(2, round(100 * share**0.5))
    return (
        f"<span class=line><span class=r>{one.index}</span><span><strong>{escape(one.description or '')}</strong>{passage}</span>"
        f"<span class=bar><s style=width:{width}%></s>{format_number(100 * (one.density or 0.0), 2)} %</span>"
        f"<span class=r>{told}</span></span>"
    )


def _value(one: Feature, key: str) -> float:
    value = one.facts.get(key)
    number = -1.0 if value is None or np.isnan(value) else float(abs(value))
    return -number if key == "feature" else number


def _order(values: Sequence[float]) -> list[int]:
    """The place of each in descending order."""
    places = np.empty(len(values), int)
    places[np.argsort(-np.asarray(values), kind="stable")] = np.arange(len(values))
    return places.tolist()


_CSS = (
    ".findex fieldset{border:0;margin:1.6rem 0 .6rem;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-size:.9rem}"
    ".findex legend{float:left;padding:0 1.1rem 0 0;color:var(--muted)}.findex label{cursor:pointer}"
    ".findex input{accent-color:var(--accent);margin:0 .25rem 0 0}"
    ".findex .items{display:flex;flex-direction:column;border-top:1px solid var(--rule)}"
    ".findex .items>*{border-bottom:1px solid var(--rule);margin:0}"
    ".findex .line{display:grid;grid-template-columns:4rem minmax(0,1fr) 8rem 4.5rem;gap:0 1rem;align-items:baseline;width:100%}"
    ".findex .items>.line{color:var(--muted);font-size:.82rem;padding:.25rem 0 .25rem 1.1rem;order:-1}"
    ".findex summary{display:list-item;color:inherit;padding:.35rem 0;font-size:.95rem}.findex summary>.line{display:inline-grid;"
    "width:calc(100% - 1.2rem);vertical-align:top}.findex .only{padding:.35rem 0 .35rem 1.1rem;font-size:.95rem}"
    ".findex summary:hover strong{text-decoration:underline}.findex strong{font-weight:600}"
    ".findex .once .ex{margin:0;padding:0;text-indent:0;font-size:.8rem;opacity:.85;white-space:nowrap;overflow:hidden;"
    "text-overflow:ellipsis}.findex .once .ex i{display:none}"
    ".findex .bar{position:relative;font-size:.82rem;color:var(--muted);font-variant-numeric:tabular-nums;padding-top:.55rem}"
    ".findex .bar s{position:absolute;left:0;top:.15rem;height:.3rem;background:var(--accent);opacity:.6;border-radius:2px}"
    ".findex details>div{padding:0 0 1rem 1.1rem;scroll-margin-top:3rem}"
    ".findex:has(.by-o:checked) .items>*{order:var(--o)}.findex:has(.by-l:checked) .items>*{order:var(--l)}"
    ".findex:has(.by-n:checked) .items>*{order:var(--n)}.findex .items>.line{order:-1!important}"
    "@media (max-width:40rem){.findex .line{grid-template-columns:2.6rem minmax(0,1fr) 3.4rem;gap:0 .6rem}.findex .line>:nth-child(3)"
    "{display:none}.findex .items>.line{padding-left:.9rem}.feature dl{grid-template-columns:minmax(0,1fr)}.feature dd{margin:0 0 .35rem}}"
)
