"""The style of the page: light and dark, phone and desktop, and paper."""

_COLOURS = """
:root { color-scheme: light dark; --page: #ffffff; --panel: #f4f6f8; --ink: #191d22; --soft: #555e69;
  --edge: #d5dae0; --strong: #9aa4b0; --link: #0b57a4; --focus: #0b57a4; --pass: #176639; --pass-ground: #e7f4ec;
  --fail: #ad1f1f; --fail-ground: #fdecea; --inconclusive: #7a5200; --inconclusive-ground: #fdf3dc;
  --before: #5f6b78; --after: #1f5fbf; --impostor: #c9d0d8; --genuine: #a9d5bb; --limit: #b3400e }
@media screen and (prefers-color-scheme: dark) {
  :root { --page: #12161b; --panel: #1b2128; --ink: #e7ebef; --soft: #a3aeba; --edge: #303943; --strong: #5d6873;
    --link: #7db8ff; --focus: #7db8ff; --pass: #6fd39a; --pass-ground: #14301f; --fail: #ff938a;
    --fail-ground: #3b1a19; --inconclusive: #eabf5c; --inconclusive-ground: #332710; --before: #b3bdc8;
    --after: #6fa8ff; --impostor: #47515c; --genuine: #2c6647; --limit: #ff9a66 }
}
.pass { --tone: var(--pass); --ground: var(--pass-ground) }
.fail { --tone: var(--fail); --ground: var(--fail-ground) }
.inconclusive { --tone: var(--inconclusive); --ground: var(--inconclusive-ground) }
"""

_TEXT = """
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100% }
body { margin: 0; background: var(--page); color: var(--ink); overflow-wrap: anywhere;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
main, footer { max-width: 74rem; margin: 0 auto; padding: 0 clamp(1rem, 3vw, 1.5rem) }
main { padding-top: clamp(1rem, 3vw, 2rem) }
h1, h2, h3, p, ul, ol, dl, dd, figure, pre { margin: 0; padding: 0 }
h2 { font-size: 1.5rem; line-height: 1.25; letter-spacing: -.01em; margin-bottom: 1.25rem }
h3 { font-size: 1.0625rem; line-height: 1.35; margin: 2rem 0 .5rem }
h2 + h3, h2 + .note + h3 { margin-top: 0 }
section[aria-labelledby] { margin-top: 3.5rem; padding-top: 1.5rem; border-top: 1px solid var(--edge) }
p, li, dd { max-width: 46rem }
.note { color: var(--soft); margin-bottom: .75rem }
.note + .note, .scroll + .note, .sum { margin-top: .75rem }
.sum { font-weight: 600; margin-bottom: .75rem }
small, .small { font-size: .8125rem; line-height: 1.4; color: var(--soft); font-weight: 400 }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: max(.875em, .78rem) }
code { overflow-wrap: anywhere }
.whole, h1 .word { white-space: nowrap }
small code { font-size: .78rem }
pre { overflow-x: auto; background: var(--panel); border: 1px solid var(--edge); border-radius: 6px;
  padding: .75rem 1rem; font-size: .8125rem; line-height: 1.5 }
pre code { font-size: inherit; white-space: pre-wrap }
a { color: var(--link) }
ul { padding-left: 1.2rem }
.card ol { padding-left: 1.5rem }
.reason + .small { margin-top: .5rem }
li + li { margin-top: .25rem }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px }
.warning { font-weight: 600; color: var(--limit); margin: .75rem 0 }
.empty { color: var(--soft); font-style: italic }
footer { margin-top: 4rem; padding-bottom: 2rem; color: var(--soft); font-size: .875rem }
"""

_TOP = """
.verdict { background: var(--ground); border-radius: 8px; padding: clamp(1.1rem, 3vw, 2rem) }
@media (min-width: 56rem) {
  .verdict { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 1rem 3rem; align-items: center }
  .verdict .reason { margin-top: 0 }
}
h1 { display: grid; grid-template-columns: auto 1fr; column-gap: .3em; align-items: center; color: var(--tone);
  font-size: clamp(2rem, 9vw, 4.5rem); line-height: 1.05; letter-spacing: -.03em }
h1 .kicker { grid-column: 1 / -1; font-size: .9375rem; font-weight: 600; letter-spacing: .01em; margin-bottom: .6em;
  color: var(--ink) }
h1 .icon { width: .85em; height: .85em }
h1 .rest { grid-column: 1 / -1; font-size: 1.25rem; line-height: 1.35; letter-spacing: 0; font-weight: 600;
  margin-top: .6rem; max-width: 24rem }
header > .scroll { margin-top: 1.5rem }
.reason { margin-top: 1rem; font-size: 1.0625rem; max-width: 52rem }
.tally { list-style: none; padding: 0; margin-top: .75rem; display: flex; flex-wrap: wrap; gap: .25rem 1.5rem;
  font-size: .9375rem; font-weight: 600 }
.tally li { margin: 0 }
.lead { margin-top: 1.5rem; font-size: 1.0625rem; max-width: 52rem }
.card { margin-top: 2rem }
.card h2 { font-size: 1.0625rem; margin-bottom: .5rem }
.card dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15.5rem), 1fr)); gap: .75rem }
.tile { display: flex; flex-direction: column; background: var(--panel); border-radius: 6px; padding: .9rem 1rem }
.tile dt { font-size: .875rem; line-height: 1.35; color: var(--soft) }
.tile .big { font-size: 1.625rem; line-height: 1.3; font-variant-numeric: tabular-nums; letter-spacing: -.015em;
  margin: .2rem 0 }
.tile .big .before, .arrow { color: var(--soft); font-size: .72em }
.tile .mark { margin-top: auto; padding-top: .5rem; font-size: .8125rem; color: var(--tone); font-weight: 600;
  display: flex; align-items: center; gap: .35rem }
.contents { margin-top: 2.5rem }
.contents ol { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .35rem 1.25rem;
  font-size: .9375rem }
.contents li { margin: 0 }
.icon { width: 1.05em; height: 1.05em; flex: none }
.icon .ground { fill: var(--tone) }
.icon .sign { fill: none; stroke: var(--page); stroke-width: 2.4; stroke-linecap: round; stroke-linejoin: round }
.badge { display: inline-flex; align-items: center; gap: .35rem; color: var(--tone); background: var(--ground);
  font-size: .875rem; font-weight: 600; line-height: 1.3; padding: .15rem .55rem .15rem .4rem; border-radius: 99px;
  white-space: nowrap }
.tag { display: inline-block; font-size: .75rem; line-height: 1.3; font-weight: 600; color: var(--soft);
  border: 1px solid var(--edge); border-radius: 4px; padding: .05rem .35rem }
.tag.wins { color: var(--fail); background: var(--fail-ground); border-color: var(--fail) }
"""

_TABLES = """
.scroll { overflow-x: auto; max-width: 100% }
.scroll + .scroll, details + .scroll, .note + .scroll { margin-top: 1.75rem }
.judge .scroll { max-width: 46rem }
table { overflow-wrap: break-word; border-collapse: collapse; width: 100%; font-size: .9375rem; line-height: 1.4 }
caption { text-align: left; padding-bottom: .5rem; font-weight: 600; font-size: 1rem }
caption span { display: block; max-width: calc(100vw - 3rem) }
th, td { text-align: left; vertical-align: top; padding: .55rem .9rem .55rem 0; border-bottom: 1px solid var(--edge)
  }
th:last-child, td:last-child { padding-right: 0 }
thead th { font-size: .8125rem; font-weight: 600; color: var(--soft); vertical-align: bottom;
  border-bottom-color: var(--strong) }
tbody th { font-weight: 400; min-width: 12rem }
tr.group th { font-weight: 700; padding-top: 1.4rem }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
td.n { white-space: nowrap }
td.n small { white-space: nowrap }
.n + td, .n + th { padding-left: .75rem }
small.line { display: block }
.meaning + small, .meaning ~ small { display: block }
.value { white-space: nowrap; font-variant-numeric: tabular-nums }
td .value + .value { display: block }
td .value + small { display: block }
td code { overflow-wrap: normal }
.bar { position: relative; display: block; height: 8px; min-width: 7rem; max-width: 12rem; margin-top: .3rem;
  background: var(--edge); border-radius: 2px }
.bar b { position: absolute; inset: 0 auto 0 0; width: var(--share); border-radius: 2px; background: var(--after) }
.bar.before b { background: var(--before) }
.bar i { position: absolute; top: -3px; bottom: -3px; left: var(--limit); width: 2px; background: var(--limit-ink) }
:root { --limit-ink: var(--ink) }
details { border-bottom: 1px solid var(--edge) }
details > :not(summary) { max-width: 100%; margin: .25rem 0 1.25rem }
details table { font-size: .875rem }
details tbody th { min-width: 8rem }
details th, details td { padding-top: .4rem; padding-bottom: .4rem }
details td .value small { display: block }
summary { cursor: pointer; padding: .6rem 0; font-weight: 600; color: var(--link) }
.facts, .terms { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0 2.5rem }
.facts { grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)) }
.facts > div { display: grid; grid-template-columns: 12rem minmax(0, 1fr); gap: .25rem 1rem; padding: .5rem 0;
  border-bottom: 1px solid var(--edge) }
.facts dt { color: var(--soft); font-size: .9375rem; overflow-wrap: anywhere }
.facts details { border: 0 }
.facts summary { padding: 0 }
.terms > div { padding: .75rem 0; border-bottom: 1px solid var(--edge) }
.terms dt { font-weight: 700 }
.judge + .judge { margin-top: 2.5rem }
.judge h3 { display: flex; align-items: center; flex-wrap: wrap; gap: .6rem }
.judge .small { margin-bottom: .75rem }
@media (max-width: 40rem) {
  .card dl { gap: 0; background: var(--panel); border-radius: 6px; padding: .25rem 1rem }
  .tile { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 0 1rem; padding: .8rem 0; border-radius: 0 }
  .phrase { white-space: normal }
  .tile + .tile { border-top: 1px solid var(--edge) }
  .tile .big { font-size: 1.375rem; line-height: 1.15; margin: 0; text-align: right; grid-row: 1; grid-column: 2;
    white-space: nowrap }
  .tile .small { grid-column: 1 }
  .tile .mark { grid-column: 2; grid-row: 2; padding: .1rem 0 0; justify-self: end; align-self: start; margin: 0 }
  .facts > div { grid-template-columns: minmax(0, 1fr); gap: 0 }
  table { font-size: .875rem }
  tbody th { min-width: 7rem }
  .n + td, .n + th { padding-left: 0 }
  .badge { padding: .1rem .45rem .1rem .3rem; font-size: .8125rem }
  th, td { padding-right: .7rem }
  td .value small { display: block }
  .bar { min-width: 5.5rem }
}
"""

_CHARTS = """
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 2rem 2.5rem;
  margin-top: 1rem }
.charts > .chart:only-child { max-width: 40rem }
figcaption { font-weight: 600; font-size: .9375rem; margin-bottom: .5rem }
svg { display: block }
svg text { font-size: 12px; fill: var(--soft); font-family: inherit }
svg .middle { text-anchor: middle }
svg text.said { fill: var(--ink) }
svg .said { paint-order: stroke; stroke: var(--page); stroke-width: 4px; stroke-linejoin: round }
.base, .tick { stroke: var(--strong) }
text.tick { stroke: none }
.rule { stroke: var(--edge) }
.limit { stroke: var(--limit); stroke-width: 2; stroke-dasharray: 5 4 }
.band { fill: var(--limit); opacity: .16 }
.line { fill: none; stroke-width: 2.25; vector-effect: non-scaling-stroke; stroke-linejoin: round }
.line.before, .whisker.before { stroke: var(--before) }
.line.after, .whisker.after { stroke: var(--after) }
.line.dashed { stroke-dasharray: 4 4 }
.area { vector-effect: non-scaling-stroke; stroke-width: 1 }
.area.impostor { fill: var(--impostor); stroke: var(--strong) }
.area.genuine { fill: var(--genuine); stroke: var(--pass); fill-opacity: .75 }
.dot.before { fill: var(--page); stroke: var(--before); stroke-width: 2.5 }
.dot.after { fill: var(--after) }
.chart .dot.after { fill-opacity: .75 }
.whisker { stroke-width: 2.5 }
.legend + .charts { margin-top: 1.25rem }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; font-size: .8125rem;
  line-height: 1.4; color: var(--soft) }
.legend li { display: flex; align-items: center; gap: .4rem; margin: 0 }
.legend svg { flex: none }
.panels { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1.75rem; margin-top: 1.25rem }
.forest ol { list-style: none; padding: 0 }
.forest figcaption small { font-size: .8125rem }
.forest li, .scale, .heads { display: grid; grid-template-columns: 17rem minmax(0, 1fr) 17rem; gap: 0 1.25rem;
  align-items: center; max-width: none; margin: 0 }
.forest li { padding: .15rem 0 }
.who { font-size: .9375rem; line-height: 1.3 }
.who small { display: block }
.values { display: grid; grid-template-columns: 1fr 1fr; gap: 0 .75rem; font-variant-numeric: tabular-nums;
  font-size: .9375rem; line-height: 1.3 }
.values > span { white-space: nowrap }
.values small { display: block }
.values b { font-weight: 600 }
.values .before b { font-weight: 400; color: var(--soft) }
.values .after:only-child { grid-column: 2 }
.values .word { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
.heads { color: var(--soft) }
.heads .values { font-size: .8125rem; font-weight: 600 }
.galleries { display: flex; flex-wrap: wrap; gap: 1.25rem 2.5rem }
.gallery { max-width: 100% }
.grid { display: grid; grid-template-columns: 3.5rem minmax(0, 1fr) }
.rows { display: grid; grid-template-rows: repeat(3, 1fr); font-size: .8125rem; color: var(--soft) }
.rows span { align-self: center }
.gallery .scroll { line-height: 0 }
.gallery img { max-width: none }
.crisp { image-rendering: pixelated }
@media (max-width: 52rem) {
  .forest li { grid-template-columns: minmax(0, 1fr) auto; align-items: baseline; padding: .35rem 0 0;
    border-top: 1px solid var(--edge) }
  .forest li .drawn { grid-column: 1 / -1; grid-row: 2 }
  .scale { grid-template-columns: minmax(0, 1fr) }
  .forest .drawn { padding: 0 .9rem }
  .heads, .scale > span:empty { display: none }
  .forest .values { display: flex; flex-wrap: wrap; justify-content: flex-end; gap: 0 .75rem; text-align: right }
  .forest .values small { display: none }
  .values .word { position: static; width: auto; height: auto; clip-path: none; color: var(--soft);
    font-size: .8125rem; margin-right: .35rem }
}
"""

_PAPER = """
@media print {
  :root { color-scheme: light }
  body { font-size: 10pt }
  .contents { display: none }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact }
  .scroll { overflow: visible }
  pre { white-space: pre-wrap }
  table { font-size: 8.5pt }
  .gallery img { max-width: 100%; height: auto }
  tr, figure, .tile, .verdict { break-inside: avoid }
  h2, h3, caption { break-after: avoid }
  section[aria-labelledby] { margin-top: 1.5rem }
  details::details-content { content-visibility: visible; block-size: auto; height: auto }
}
"""

STYLE = _COLOURS + _TEXT + _TOP + _TABLES + _CHARTS + _PAPER
