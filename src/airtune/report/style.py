"""The report's style sheet and the few lines of script beside Plotly's."""

CSS = """
:root { color-scheme: light; --ink: #1f2933; --soft: #616e7c; --line: #e4e7eb; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f7fa; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 40px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 32px 0 10px; }
.soft { color: var(--soft); margin: 4px 0 0; overflow-wrap: anywhere; }
.cards { display: grid; gap: 10px; margin: 20px 0 0;
  grid-template-columns: repeat(auto-fill, minmax(215px, 1fr)); }
.cards div, .panel, table, details { background: #fff; border: 1px solid var(--line);
  border-radius: 8px; }
.cards div { padding: 10px 14px; }
.cards dt { color: var(--soft); font-size: 13px; }
.cards dd { margin: 0; }
.cards dd.value { font-size: 17px; font-weight: 600; text-wrap: balance; }
.cards dd.note { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; margin-top: 12px; }
table { border-collapse: separate; border-spacing: 0; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { padding: 8px 12px; text-align: right; border-top: 1px solid var(--line); }
thead th { border-top: 0; vertical-align: bottom; font-size: 13px; color: var(--soft); }
th:first-child { text-align: left; overflow-wrap: anywhere; min-width: 9em; }
.unit { font-weight: 400; }
.grid { display: grid; gap: 12px; }
.grid .wide { grid-column: 1 / -1; }
.grid .soft { margin: 0 2px; font-size: 13px; }
@media (min-width: 800px) {
  .two { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .three { grid-template-columns: repeat(3, minmax(0, 1fr)); }
}
.panel { padding: 8px 10px; min-width: 0; overflow: hidden; }
.key { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 14px; margin: 0 0 10px;
  font-size: 14px; }
.key button { font: inherit; color: inherit; background: none; border: 0; padding: 2px 0;
  cursor: pointer; text-align: left; overflow-wrap: anywhere; }
.key button[aria-pressed=false] { opacity: .35; }
.swatch { display: inline-block; width: 22px; height: 0; margin: 0 6px 4px 0;
  border-top: 3px solid; vertical-align: middle; }
.dashed { border-top-style: dashed; }
details { margin-top: 12px; padding: 0 14px; }
details > summary { cursor: pointer; padding: 10px 0; font-weight: 600; overflow-wrap: anywhere; }
details[open] { padding-bottom: 14px; }
details .cards { margin: 0 0 12px; }
details .panel { border-color: transparent; padding: 0; }
pre { margin: 0; overflow-x: auto; font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; }
footer { margin-top: 32px; color: var(--soft); font-size: 13px; }
@media print { body { background: #fff; } .panel, details { break-inside: avoid; } }
"""

SCRIPT = """
// A figure drawn in a closed section has no width yet.
document.querySelectorAll("details").forEach(section =>
  section.addEventListener("toggle", () => section.open &&
    section.querySelectorAll(".js-plotly-plot").forEach(plot => Plotly.Plots.resize(plot))));
// A finger on a chart means to scroll the page, not to zoom.
if (matchMedia("(pointer: coarse)").matches)
  document.querySelectorAll(".js-plotly-plot").forEach(plot =>
    Plotly.relayout(plot, {dragmode: false}));
// The key stands for all panels: a click hides its run in each.
document.querySelectorAll(".key button").forEach(button =>
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    document.querySelectorAll(".curves .js-plotly-plot").forEach(plot => {
      const mine = plot.data.flatMap((t, i) => t.legendgroup === button.dataset.run ? [i] : []);
      if (mine.length) Plotly.restyle(plot, {visible: shown}, mine);
    });
  }));
"""
