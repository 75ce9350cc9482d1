// SPDX-License-Identifier: GPL-2.0-or-later
//
// How the report looks. Colours are variables, set once for light and once for dark; wide tables
// scroll in a box of their own, so the page never does sideways.
#include "harness/report/page/page.h"

namespace fpswap::report {

std::string_view PageStyle() {
  return R"css(
:root {
  color-scheme: light dark;
  --bg: #fff; --fg: #1b1f24; --soft: #57606a; --line: #d0d7de; --panel: #f6f8fa; --link: #0550ae;
  --bad: #c4001d; --bad-soft: #ffe3e6; --focus: #0550ae; --heat: 235 120 0; --ink: 5 80 174;
}
@media (prefers-color-scheme: dark) {
  :root {
    --bg: #0d1117; --fg: #e6edf3; --soft: #9aa4af; --line: #373e47; --panel: #161b22;
    --link: #79b8ff; --bad: #ff6470; --bad-soft: #43141b; --focus: #79b8ff; --heat: 165 78 0;
    --ink: 121 184 255;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body {
  margin: 0 auto; padding: 0 1rem 4rem; max-width: 76rem; background: var(--bg); color: var(--fg);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.6rem; margin: 1.2rem 0 .2rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; padding-bottom: .25rem;
     border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.3rem 0 .4rem; }
p { margin: .5rem 0; max-width: 60rem; }
a { color: var(--link); }
code, pre { font: .85rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .6rem;
      overflow-x: auto; overflow-wrap: normal; }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: .5rem; background: var(--bg); padding: .4rem .8rem; z-index: 2; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
nav ul, .legend, .sums { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.2rem;
                         padding: 0; margin: .5rem 0; }
.sums { gap: .6rem; margin: 1rem 0; }
.sums li { background: var(--panel); border: 1px solid var(--line); border-radius: 6px;
           padding: .4rem .8rem; }
.sums strong { display: block; font-size: 1.3rem; }
.note { color: var(--soft); font-size: .9rem; }
.problem { border-left: 4px solid var(--bad); padding-left: .7rem; }
.scroll { overflow-x: auto; max-width: 100%; margin: .5rem 0; }
.tall { max-height: 36rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: .9rem; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
         border-bottom: 1px solid var(--line); }
thead th { background: var(--panel); position: sticky; top: 0; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.t { white-space: nowrap; }
.wide { min-width: 16rem; } .place { min-width: 11rem; }
.finding { border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0; }
.finding:target { border-color: var(--focus); }
.finding > summary { cursor: pointer; padding: .6rem .8rem; background: var(--panel);
                     border-radius: 6px; }
.finding > div { padding: .2rem .8rem .8rem; }
.tag { display: inline-block; border: 1px solid var(--line); border-radius: 1rem;
       padding: 0 .6rem; margin-right: .3rem; font-size: .85rem; background: var(--bg); }
table .tag { white-space: nowrap; font-weight: 400; }
.say { overflow-wrap: anywhere; position: sticky; left: 0; max-width: min(60rem, calc(100vw - 6rem)); }
.program td, .program th { border-bottom-color: transparent; padding: .15rem .6rem; }
.program tr.step > * { border-top: 1px solid var(--line); }
.program code { white-space: pre; }
.program tr.bad > * { background: var(--bad-soft); }
.program .ut { font-weight: 700; }
.program .aux { color: var(--soft); }
.bits b { color: var(--bad); text-decoration: underline; text-decoration-thickness: 2px; }
.bits code { white-space: nowrap; }
.maps { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
figure { margin: .4rem 0; max-width: 100%; }
figcaption { font-weight: 600; font-size: .9rem; }
svg { max-width: 100%; height: auto; display: block; }
svg.key { width: .8rem; height: .8rem; display: inline-block; margin-right: .35rem;
          vertical-align: -1px; }
.legend { font-size: .85rem; gap: .2rem 1rem; }
.map rect { stroke: var(--bg); stroke-width: .8; }
.z { opacity: .28; }
rect.d { fill: var(--bad); stroke: var(--fg); stroke-width: 1.6; }
.c0 { fill: hsl(210 65% 48%); } .c1 { fill: hsl(150 55% 38%); } .c2 { fill: hsl(275 50% 55%); }
.c3 { fill: hsl(60 45% 40%); } .c4 { fill: hsl(75 50% 38%); } .c5 { fill: hsl(35 85% 45%); }
.c6 { fill: hsl(188 70% 38%); } .c7 { fill: hsl(315 48% 52%); } .c8 { fill: hsl(95 35% 42%); }
.c9 { fill: hsl(48 90% 42%); } .c10 { fill: hsl(120 30% 45%); } .c11 { fill: hsl(230 45% 60%); }
.c12 { fill: hsl(245 40% 65%); } .c13, .c14, .c15, .c16 { fill: hsl(20 30% 50%); }
.c17 { fill: hsl(22 70% 48%); } .c18 { fill: hsl(255 45% 62%); } .c19 { fill: hsl(165 40% 50%); }
.bitmap { max-width: none; }
.bitmap rect { fill: var(--panel); stroke: var(--line); }
.bitmap .ones { fill: var(--soft); opacity: .45; }
.bitmap .d { fill: var(--bad); }
.cnone { fill: hsl(215 8% 55%); }
.heat { font-size: .8rem; }
.heat th, .heat td { padding: .15rem .4rem; border: 1px solid var(--bg); }
.heat thead th { vertical-align: bottom; }
.heat tbody th { font-weight: 400; white-space: nowrap; position: sticky; left: 0;
                 background: var(--bg); }
.heat thead th:first-child { left: 0; z-index: 1; }
.heat thead span { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
.h0 { background: rgb(var(--heat) / .08); } .h1 { background: rgb(var(--heat) / .18); }
.h2 { background: rgb(var(--heat) / .28); } .h3 { background: rgb(var(--heat) / .38); }
.h4 { background: rgb(var(--heat) / .5); } .h5 { background: rgb(var(--heat) / .62); }
.h6 { background: rgb(var(--heat) / .76); } .h7 { background: rgb(var(--heat) / .9); }
.none { color: var(--soft); text-align: center; }
.chart { width: 100%; max-width: 34rem; }
.maps figure.half { flex: 1 1 20rem; max-width: 34rem; }
.chart text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.chart .axis { stroke: var(--line); stroke-width: 1; }
.chart .run { stroke: var(--line); stroke-width: 1; stroke-dasharray: 2 3; }
.chart polyline { fill: none; stroke: rgb(var(--ink)); stroke-width: 1.6; }
.chart circle { fill: rgb(var(--ink)); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .5rem 0; }
dt { color: var(--soft); }
dd { margin: 0; }
@media (max-width: 40rem) {
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .4rem; }
}
)css";
}

}  // namespace fpswap::report
