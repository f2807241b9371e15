"""Features as text and as HTML: examples with each token shaded by how strongly the feature is active there."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from inscape.dictionaries.reading.features import Example, Feature, Features
from inscape.dictionaries.reading.words import visible
from inscape.results import format_number

TITLES = {
    "top": "Largest activations",
    "quantile": "From strong to weak",
    "random": "Drawn at random where it is active",
    "silent": "Drawn at random where it is silent",
}
_LINE = 76
# Shades are one warm color thinned out, so that one sheet serves light and dark pages.
STYLE = (
    ".feature .ex{margin:.1rem 0;padding:.12rem 0 .12rem 4.2em;text-indent:-4.2em;font:.86rem/1.55 ui-monospace,Menlo,Consolas,"
    "'DejaVu Sans Mono',monospace;overflow-wrap:anywhere}"
    ".feature .ex i{display:inline-block;width:4.2em;text-indent:0;font-style:normal;opacity:.6;font-variant-numeric:tabular-nums}"
    ".feature .ex b{font-weight:400;text-indent:0;border-radius:3px;padding:.08em 0;"
    "background:color-mix(in srgb,#e8710a calc(var(--a)*1%),transparent)}"
    ".feature .ex b.c{font-weight:700;box-shadow:0 1.5px 0 #e8710a}"
    ".feature .ex u{text-decoration:none;opacity:.5}.feature .ex b u{opacity:1}"
    ".feature dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.15rem 1.2rem;margin:.5rem 0}"
    ".feature dt{opacity:.65}.feature dd{margin:0;overflow-wrap:anywhere}"
    ".feature h4{margin:.9rem 0 .2rem;font-size:.88rem;font-weight:600}"
    ".feature .w{white-space:nowrap}.feature .v{opacity:.6;font-size:.9em;font-variant-numeric:tabular-nums}"
)


def example_html(example: Example, scale: float) -> str:
    """One passage; `scale` is the activation that gets the full shade."""
    parts: list[str] = []
    plain = ""
    for place, (word, value) in enumerate(zip(example.words, example.activations, strict=True)):
        shown = escape(visible(word.lstrip(" ") or word) if place == 0 else visible(word)).replace("⏎", "<u>⏎</u>")
        center = place == example.center and example.kind != "silent"
        if value == 0 and not center:
            plain += shown
            continue
        shade = min(80, max(6, round(80 * abs(value) / scale))) if scale else 0
        mark = " class=c" if center else ""
        parts.append(f"{plain}<b{mark} style=--a:{shade}>{shown}</b>")
        plain = ""
    parts.append(plain)
    strength = f"<i>{format_number(example.activation, 2)}</i>" if example.kind != "silent" else "<i>0</i>"
    return f'<p class=ex title="{escape(example.stimulus, quote=True)} {example.position}">{strength}{"".join(parts)}</p>'


def feature_html(feature: Feature, *, most: int = 12, kinds: Sequence[str] = tuple(TITLES), anchor: str = "") -> str:
    """What is known of a feature, without a heading.

    Args:
        feature: the feature.
        most: examples of a kind.
        kinds: which kinds.
        anchor: what stands before the number of a feature in its anchor on the page; "" where features have none.
    """
    scale = max((abs(value) for one in feature.examples.get("top", ()) for value in one.activations), default=0.0)
    shown: list[str] = []
    for kind in kinds:
        mine = feature.examples.get(kind, ())[:most]
        if mine:
            shown.append(f"<h4>{TITLES[kind]}</h4>{''.join(example_html(one, scale) for one in mine)}")
    return f"<div class=feature>{_facts(feature, anchor)}{''.join(shown)}</div>"


def _facts(feature: Feature, anchor: str) -> str:
    facts = feature.facts
    rows: list[tuple[str, str]] = []
    if facts.get("density") is not None:
        numbers = f"in {_percent(facts['density'])} of the rows ({facts['count']:,})"
        if facts["count"]:
            numbers += f", by {format_number(facts['mean'])} on average, {format_number(facts['largest'])} at most"
        rows.append(("active", numbers))
    scores = [f"{task} {_score(facts[task])}" for task in ("detection", "fuzzing") if _score(facts.get(task))]
    if scores:
        rows.append(("description tells", f"{', '.join(scores)} <span class=v>(chance 0.5)</span>"))
    if facts.get("norm") is not None:
        rows.append(("direction", f"length {format_number(facts['norm'])}"))
    if facts.get("encoder_decoder_cosine") is not None:
        rows.append(("reads what it writes", f"cosine {format_number(facts['encoder_decoder_cosine'], 2)}"))
    if facts.get("words"):
        rows.append(("most often on", " ".join(f"<code>{escape(visible(word))}</code>" for word in facts["words"])))
    for name, pairs in (("makes likely", feature.promoted), ("makes unlikely", feature.suppressed)):
        if pairs:
            words = (f"<span class=w><code>{escape(visible(w))}</code> <span class=v>{value:+.2g}</span></span>" for w, value in pairs)
            rows.append((name, " ".join(words)))
    for name, pairs in (("like it", feature.neighbors), ("active with it", feature.partners)):
        if pairs:
            rows.append((name, ", ".join(f"{_link(number, anchor)} <span class=v>{value:.2f}</span>" for number, value in pairs)))
    if feature.labels:
        rows.append(("goes with", ", ".join(f"{escape(name)} <span class=v>{value:+.2f}</span>" for name, value in feature.labels)))
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{text}</dd>' for name, text in rows)}</dl>"


def _link(number: int, anchor: str) -> str:
    return f'<a href="#{anchor}{number}">{number}</a>' if anchor else str(number)


def _percent(share: float) -> str:
    return f"{format_number(100 * share, 2)} %"


def _score(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.2f}"


def feature_card(feature: Feature) -> str:
    """A feature in a notebook."""
    told = f" · {escape(feature.description)}" if feature.description else ""
    head = f"<p><b>Feature {feature.index}</b>{told} <span style=opacity:.6>{escape(feature.where)}</span></p>"
    hint = f"<p style=opacity:.65>{escape(feature.hint)}</p>" if feature.hint else ""
    body = feature_html(feature, most=6, kinds=("top", "quantile", "random"))
    return f"<div style='font:13px/1.5 system-ui,sans-serif;max-width:64em'><style>{STYLE}</style>{head}{body}{hint}</div>"


def features_card(features: Features) -> str:
    """All features in a notebook: the ones that are told best, each with its strongest passage."""
    rows: list[str] = []
    for feature in ranked(features, 24):
        best = feature.examples["top"][:1]
        scale = max((abs(value) for one in best for value in one.activations), default=0.0)
        passage = "".join(example_html(one, scale) for one in best)
        score = _score(feature.facts.get("detection")) or "–"
        rows.append(
            f"<tr><td>{feature.index}</td><td>{_percent(feature.density or 0.0)}</td><td>{score}</td>"
            f"<td style='text-align:left'>{escape(feature.description or '')}{passage}</td></tr>"
        )
    head = f"<p><b>{escape(repr(features))}</b> <span style=opacity:.6>the {len(rows)} that are told best; features[i] shows one</span></p>"
    table = f"<table><thead><tr><th>feature<th>active<th>detection<th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    style = f"{STYLE}.features td,.features th{{vertical-align:top;padding:.2rem .8rem .2rem 0}}"
    return (
        f"<div class='feature features' style='font:13px/1.5 system-ui,sans-serif;max-width:72em'><style>{style}</style>{head}{table}</div>"
    )


def ranked(features: Features, most: int) -> list[Feature]:
    """The first of the active features, those whose description tells best first; among equals the more frequent."""
    scores, density = np.nan_to_num(features.column("detection").astype(float), nan=-1.0), features.column("density")
    order = np.lexsort((-density, -scores))
    numbers = features.table["feature"].to_numpy()
    return [features[int(numbers[place])] for place in order[density[order] > 0][:most]]


def feature_text(feature: Feature) -> str:
    """A feature for a terminal: what is known, and its strongest passages with the active token in brackets."""
    facts = feature.facts
    lines = [f"Feature {feature.index} of {feature.where}" + (f": {feature.description}" if feature.description else "")]
    if facts.get("density") is not None:
        more = f"; mean {format_number(facts['mean'])}, largest {format_number(facts['largest'])}" if facts["count"] else ""
        lines.append(f"  active in {_percent(facts['density'])} of the rows ({facts['count']:,}){more}")
    scores = [f"{task} {_score(facts[task])}" for task in ("detection", "fuzzing") if _score(facts.get(task))]
    if scores:
        lines.append(f"  its description tells: {', '.join(scores)} (chance 0.5)")
    if feature.promoted:
        lines.append("  makes likely: " + " ".join(visible(word).strip() or visible(word) for word, _ in feature.promoted))
    for name, pairs in (("like it", feature.neighbors), ("active with it", feature.partners), ("goes with", feature.labels)):
        if pairs:
            lines.append(f"  {name}: " + ", ".join(f"{other} ({value:.2f})" for other, value in pairs))
    lines += [example_text(one) for one in feature.examples.get("top", ())[:5]]
    return "\n".join([*lines, *([f"  {feature.hint}"] if feature.hint else [])])


def example_text(example: Example) -> str:
    """One passage on one line, the token for which it was chosen in brackets."""
    words = [visible(word) for word in example.words]
    before, after = "".join(words[: example.center]), "".join(words[example.center + 1 :])
    center = f"[{words[example.center]}]"
    room = _LINE - len(center)
    before = before if len(before) <= room * 2 // 3 else f"…{before[-(room * 2 // 3) :]}"
    after = after if len(after) <= room // 3 else f"{after[: room // 3]}…"
    return f"  {format_number(example.activation, 2):>6}  {before}{center}{after}"
