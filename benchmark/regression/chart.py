"""Before and after as one SVG: for every measured cell the change of its time with the interval, beside the A/A control."""

from __future__ import annotations

import html

from adlbench.benchmark.regression.comparison import Comparison

WIDTH, ROW, LABEL, RIGHT = 920, 26, 420, 110
COLOURS = {"slower": "#c0392b", "pass": "#2c7a3f", "inconclusive": "#b7791f"}


def chart(result: Comparison) -> str:
    """Points are estimates, bars 99 % intervals, grey bars the same code against itself; the shaded band is what counts as nothing."""
    rows = [(f, f.verdict) for f in result.speed if f.verdict is not None and f.verdict.rounds >= 2]
    reach = max([0.08, *(abs(end) for _, v in rows for end in (v.change.low, v.change.high))]) * 1.1
    reach = min(reach, 1.0)
    height = 60 + ROW * max(len(rows), 1)
    plot = WIDTH - LABEL - RIGHT

    def x(value: float) -> float:
        return LABEL + plot * (max(-reach, min(reach, value)) + reach) / (2 * reach)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"',
        ' font-family="system-ui,sans-serif" font-size="12">',
        "<title>Change of time, head against base</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<rect x="{x(-0.03):.1f}" y="34" width="{x(0.03) - x(-0.03):.1f}" height="{height - 40}" fill="#eef2f5"/>',
        f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="30" y2="{height - 6}" stroke="#666"/>',
    ]
    for share in (-1, -0.5, 0, 0.5, 1):
        value = share * reach / 1.1
        parts.append(f'<text x="{x(value):.1f}" y="24" text-anchor="middle" fill="#444">{100 * value:+.0f} %</text>')
    if not rows:
        parts.append(f'<text x="{LABEL}" y="50" fill="#444">nothing was timed</text>')
    for index, (finding, verdict) in enumerate(rows):
        y = 46 + ROW * index
        colour = COLOURS.get(finding.outcome, "#555")
        label = html.escape(f"{finding.group.rpartition('/')[0]} {finding.what}")
        change, control = verdict.change, verdict.control
        parts += [
            f'<text x="{LABEL - 10}" y="{y + 4}" text-anchor="end">{label}</text>',
            f'<line x1="{x(control.low):.1f}" x2="{x(control.high):.1f}" y1="{y + 7}" y2="{y + 7}" stroke="#aaa" stroke-width="3"/>',
            f'<line x1="{x(change.low):.1f}" x2="{x(change.high):.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>',
            f'<circle cx="{x(change.estimate):.1f}" cy="{y}" r="5" fill="{colour}"/>',
            f'<text x="{WIDTH - RIGHT + 8}" y="{y + 4}" fill="{colour}">{100 * change.estimate:+.1f} % {finding.outcome}</text>',
        ]
    return "".join(parts) + "</svg>\n"
