"""The page: sections of tables and figures, with the figures' program in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from sweepvi.files import write_atomically
from sweepvi.sweep.best import score, title
from sweepvi.sweep.ending import counts, rescored, settings
from sweepvi.sweep.records import StudyRecord
from sweepvi.sweep.report import front, importance, over_steps, over_trials, tables
from sweepvi.sweep.report.scale import axes

REPORT = "report.html"

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: 0; }
h2 { font-size: 1.15em; margin: 2em 0 0.3em; border-top: 1px solid #ddd; padding-top: 1em; }
p { margin: 0.4em 0; max-width: 48em; }
.best { font-size: 1.2em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin: 0.6em 0; }
th, td { text-align: left; padding: 0.25em 1em 0.25em 0; border-bottom: 1px solid #eee; vertical-align: top; }
th { font-weight: 600; white-space: nowrap; }
td { overflow-wrap: anywhere; min-width: 3em; }
code { background: #f4f4f4; padding: 0 0.25em; }
"""

CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["lasso2d", "select2d"]}

RULES = ("n_trials", "sampler", "seed", "pruner", "seeds")
"""The settings of a sweep that are named in the report."""


class Section(NamedTuple):
    """A part of the page."""

    heading: str
    caption: str
    """What there is to see, as text."""
    content: go.Figure | str | None
    """A figure or HTML; without it, the caption says why there is none."""


def write(record: StudyRecord, folder: Path) -> Path:
    """Write ``report.html``, in one piece; returns its path."""
    path = folder / REPORT
    write_atomically(path, html(record, folder.resolve().name))
    return path


def html(record: StudyRecord, name: str) -> str:
    """The page of a sweep: HTML that loads nothing from elsewhere."""
    body = "".join(_shown(section) for section in sections(record))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>sweep {escape(name)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>'
        f"<script>{get_plotlyjs()}</script></head>\n<body>{_head(record, name)}{body}</body></html>\n"
    )


def sections(record: StudyRecord) -> Iterator[Section]:
    """All parts of the page that a sweep of this kind has something for."""
    single = len(record.objectives) == 1
    if record.scored:
        yield Section("The best trials" if single else "The Pareto front", _about_choice(record), tables.chosen(record))
    if not single:
        yield Section("Objectives", "Each trial by its objectives.", front.pareto(record))
    yield Section("What was searched", _rules(record), tables.searched(record) if record.names else None)
    if record.reasons():
        yield Section("Trials without a score", "", tables.failures(record))
    if record.scored:
        history = over_trials.history(record)
        yield Section("Scores by trial", "Scores far from the best are drawn at the edge.", history)
        yield from _of_settings(record)
    losses = over_steps.losses(record)
    if losses is not None:
        yield Section("Losses of the best", "Losses of different estimators are on different scales.", losses)
    rungs = over_steps.rungs(record)
    if rungs is not None:
        yield Section("At the rungs", "How trials stood where it was decided whether they go on.", rungs)
    if record.sessions:
        yield Section("Time", _about_time(record), tables.sessions(record))


def _of_settings(record: StudyRecord) -> Iterator[Section]:
    """What scores have to do with settings."""
    varied = axes(record)
    if not varied:
        yield Section("Scores by setting", "Every setting had one value only.", None)
        return
    shares = importance.importances(record, varied)
    about = "How much a setting has to do with being among the best tenth of what was tried (PED-ANOVA)."
    few = f"Importances need {importance.FEWEST} trials with a score, and settings that make a difference."
    yield Section("What matters", about if shares else few, importance.bars(shares))
    ranked = [varied[name] for name in [*shares, *(name for name in varied if name not in shares)]]
    most = over_trials.MOST_SLICES
    note = f"The {most} settings that matter most, of {len(ranked)}." if len(ranked) > most else ""
    yield Section("Scores by setting", note, over_trials.slices(record, ranked))
    lines = over_trials.parallel(record, ranked)
    if lines is not None:
        about = "A line is a trial; a dash is a setting that did not count for it. Drag along an axis to select."
        yield Section("All settings at once", about, lines)


def _head(record: StudyRecord, name: str) -> str:
    lines = [f"<h1>Sweep {escape(name)}</h1>"]
    if record.created:
        lines.append(f"<p>{escape(record.created)}</p>")
    best = record.best
    if best is not None:
        found = ", ".join(f"<code>{escape(key)}={escape(value)}</code>" for key, value in settings(best))
        lines.append(
            f'<p class="best"><b>{escape(score(record, best))}</b>, trial {best.number}{": " * bool(found)}{found}</p>'
        )
        again = rescored(best)
        if again:
            lines.append(f"<p>Scored again after it was chosen: {escape('; '.join(again))}.</p>")
        lines.append("<p>Run it with the command at the head of <code>best.yaml</code>.</p>")
    elif record.scored:
        names = " and ".join(title(each) for each in record.objectives)
        lines.append(f'<p class="best">{len(record.pareto)} trials that none betters in {escape(names)} at once</p>')
    else:
        lines.append('<p class="best"><b>No trial has a score.</b></p>')
    lines.append(f"<p>{len(record.trials):,} trials: {escape(counts(record))}.</p>")
    return "".join(lines)


def _rules(record: StudyRecord) -> str:
    """By which rules it was searched."""
    if not record.names:
        return "No setting was searched."
    if record.identity.get("grid"):
        return "Every combination, once."
    return ", ".join(f"{key}: {record.settings[key]}" for key in RULES if key in record.settings)


def _about_choice(record: StudyRecord) -> str:
    if len(record.objectives) > 1:
        return "The trials that no other betters in all objectives; each is a file in the folder pareto."
    flattery = "The score with which a trial was chosen flatters it a little"
    return f"{flattery}; those beside it had no part in choosing." if record.finals else f"{flattery}."


def _about_time(record: StudyRecord) -> str:
    spent = [trial.seconds for trial in record.trials if trial.seconds]
    return f"Trials took {tables.duration(sum(spent))} in all, lane by lane." if spent else ""


def _shown(section: Section) -> str:
    content = section.content
    if isinstance(content, go.Figure):
        slug = re.sub(r"\W+", "-", section.heading.lower())
        content = content.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=slug)
    caption = f"<p>{escape(section.caption)}</p>" if section.caption else ""
    return f"<h2>{escape(section.heading)}</h2>{caption}{content or ''}\n"
