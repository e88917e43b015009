#!/usr/bin/env python3
"""Draws the sequences of this folder: python3 docs/pictures/draw.py writes one SVG for each.

A picture is a list of lanes, from left to right, and of steps, from top to
bottom: (from, to, text) is an arrow, (lane, text) a note.
"""

import html
import pathlib

PICTURES = {
    "select": (
        ("backend", "fdw/fdw_scan", "protocol, wire", "Convex"),
        (
            ("backend", "fdw/fdw_scan", "first row of a foreign table"),
            ("fdw/fdw_scan", "the entry (server, PostgreSQL snapshot) has no Convex timestamp yet"),
            ("fdw/fdw_scan", "protocol, wire", "list_snapshot of the needed fields"),
            ("protocol, wire", "Convex", "POST, may be repeated"),
            ("Convex", "protocol, wire", "page 1 at snapshot S, cursor"),
            ("protocol, wire", "the whole page is checked: UTF-8, JSON, table, ids, one snapshot"),
            ("protocol, wire", "Convex", "page 2 at S, while page 1 is converted"),
            ("protocol, wire", "fdw/fdw_scan", "page 1"),
            ("fdw/fdw_scan", "S is the timestamp of every scan under this PostgreSQL snapshot"),
            ("fdw/fdw_scan", "backend", "rows, converted one by one"),
            ("backend", "fdw/fdw_scan", "next rows, other foreign tables: all at S"),
        ),
    ),
    "commit": (
        ("backend", "write/queue", "write/batch", "Convex"),
        (
            ("backend", "write/queue", "INSERT, UPDATE, DELETE: messages"),
            ("write/queue", "own writes are visible to the transaction's scans; ROLLBACK TO takes them back"),
            ("backend", "write/batch", "COMMIT"),
            ("write/batch", "rows that are written by key are locked in the cluster"),
            ("write/batch", "Convex", "has a document changed since it was read?"),
            ("Convex", "write/batch", "no (otherwise 40001, nothing was sent)"),
            ("write/batch", "Convex", "one request: one Convex transaction, never sent twice"),
            ("Convex", "write/batch", "applied"),
            ("write/batch", "a lost answer: the change log says what became of it, or the error is 08007"),
            ("write/batch", "backend", "PostgreSQL commits"),
        ),
    ),
    "change": (
        ("Convex", "subscription/sub_step", "subscription/sub_apply", "catalog, targets"),
        (
            ("subscription/sub_step", "Convex", "document_deltas after the cursor; no transaction is open"),
            ("Convex", "subscription/sub_step", "page of changes, next cursor"),
            ("subscription/sub_step", "catalog, targets", "BEGIN; is everything as it was when the page was asked for?"),
            ("subscription/sub_step", "subscription/sub_apply", "the changes of each table"),
            ("subscription/sub_apply", "catalog, targets", "rows, as the owner of the target"),
            ("subscription/sub_step", "catalog, targets", "cursor, states and costs; COMMIT"),
            ("catalog, targets", "rows and cursor are committed together: each change is applied exactly once"),
            ("subscription/sub_step", "Convex", "the next page was asked for meanwhile"),
        ),
    ),
}

LANE_PX, STEP_PX, TOP_PX, LEFT_PX = 310, 46, 70, 150
STYLE = "font-family='DejaVu Sans, Helvetica, sans-serif' font-size='12'"


def text(x, y, words, weight="normal", color="#222"):
    return f"<text x='{x}' y='{y}' text-anchor='middle' font-weight='{weight}' fill='{color}'>{html.escape(words)}</text>"


def draw(lanes, steps):
    at = {lane: LEFT_PX + i * LANE_PX for i, lane in enumerate(lanes)}
    width, height = 2 * LEFT_PX + (len(lanes) - 1) * LANE_PX, TOP_PX + len(steps) * STEP_PX + 20
    yield f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}' {STYLE}>"
    yield "<defs><marker id='head' markerWidth='9' markerHeight='8' refX='9' refY='4' orient='auto'>"
    yield "<path d='M0,0 L9,4 L0,8 z' fill='#336791'/></marker></defs>"
    yield f"<rect width='{width}' height='{height}' fill='white'/>"
    for lane, x in at.items():
        yield f"<line x1='{x}' y1='40' x2='{x}' y2='{height - 10}' stroke='#bbb' stroke-dasharray='4 3'/>"
        yield f"<rect x='{x - 95}' y='12' width='190' height='28' rx='4' fill='#e8eef4' stroke='#336791'/>"
        yield text(x, 31, lane, "bold")
    for i, step in enumerate(steps):
        y = TOP_PX + i * STEP_PX + 18
        if len(step) == 3:
            begin, end = at[step[0]], at[step[1]]
            yield f"<line x1='{begin}' y1='{y}' x2='{end}' y2='{y}' stroke='#336791' stroke-width='1.5' marker-end='url(#head)'/>"
            yield label((begin + end) / 2, y - 6, step[2], width)
        else:
            yield from note(at[step[0]], y, step[1], width)
    yield "</svg>"


def clamp(x, words, width):
    """Where text of these words may be centred without leaving the picture."""
    half = len(words) * 3.4 + 12
    return min(max(x, half), width - half)


def label(x, y, words, width):
    return text(clamp(x, words, width), y, words)


def note(x, y, words, width):
    x, half = clamp(x, words, width), len(words) * 3.4 + 8
    yield f"<rect x='{x - half}' y='{y - 16}' width='{2 * half}' height='22' rx='3' fill='#fff8e1' stroke='#d9b65b'/>"
    yield text(x, y, words, color="#5d4a10")


def main():
    for name, (lanes, steps) in PICTURES.items():
        path = pathlib.Path(__file__).with_name(f"{name}.svg")
        path.write_text("\n".join(draw(lanes, steps)) + "\n")


if __name__ == "__main__":
    main()
