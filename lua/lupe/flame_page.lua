--- The page around a flame graph: style and script, all in one file. It zooms on click, searches, and tells of the
-- frame under the mouse; nothing is fetched. DATA_GOES_HERE is where lupe.flame_html puts its data.
-- @module lupe.flame_page

return [==[<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>lupe: flame graph</title>
<style>
:root { color-scheme: light dark; --paper: #fffdf8; --ink: #222; --dim: #666; --line: #d8d2c8; --hit: #b5179e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #1d1c1a; --ink: #eee; --dim: #aaa; --line: #44403a; --hit: #ff5ed2; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 14px/1.45 system-ui, sans-serif; }
header { position: sticky; top: 0; background: var(--paper); border-bottom: 1px solid var(--line);
  padding: 10px 16px 8px; }
h1 { font-size: 17px; margin: 0; }
p { margin: 2px 0 0; color: var(--dim); }
.tools { display: flex; gap: 8px; margin-top: 8px; align-items: center; flex-wrap: wrap; }
input { font: inherit; padding: 4px 8px; width: 22em; max-width: 100%; border: 1px solid var(--line);
  border-radius: 5px; background: transparent; color: inherit; }
button { font: inherit; padding: 4px 10px; border: 1px solid var(--line); border-radius: 5px; background: transparent;
  color: inherit; cursor: pointer; }
#found { color: var(--hit); }
#about { font: 12.5px/1.4 ui-monospace, Menlo, Consolas, monospace; min-height: 1.4em; margin-top: 6px;
  white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
canvas { display: block; width: calc(100% - 32px); margin: 12px 16px; cursor: pointer; }
footer { color: var(--dim); padding: 0 16px 16px; }
</style>
</head>
<body>
<header>
<h1 id="title"></h1>
<p id="subtitle"></p>
<div class="tools">
<input id="search" type="search" placeholder="search functions, / to begin" aria-label="search functions">
<button id="reset">whole graph</button>
<span id="found" role="status"></span>
</div>
<div id="about"></div>
</header>
<canvas id="graph" aria-label="flame graph"></canvas>
<footer id="footer"></footer>
<script type="application/json" id="data">DATA_GOES_HERE</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const ROW = 19, FONT = "11.5px ui-monospace, Menlo, Consolas, monospace", LEAST = 0.4;
const id = (name) => document.getElementById(name);
const canvas = id("graph"), pen = canvas.getContext("2d");
id("title").textContent = document.title = data.title;
id("subtitle").textContent = data.subtitle;
id("footer").textContent = data.footer;

// nodes: [name, module, parent, value, self, inlined, base, color, size], parents first, children in order
const nodes = data.nodes.map((n) => ({
  name: data.texts[n[0]], module: data.texts[n[1]], parent: n[2], value: n[3], self: n[4], inlined: n[5] === 1,
  base: n[6], color: data.texts[n[7]], size: n[8], used: 0, start: 0, depth: 0, within: false,
}));
let deepest = 0;
for (const n of nodes) {
  if (n.parent < 0) continue;
  const parent = nodes[n.parent];
  n.depth = parent.depth + 1;
  n.start = parent.start + parent.used;
  parent.used += n.size;
  deepest = Math.max(deepest, n.depth);
}
const root = nodes[0];
let zoomed = root, pattern = null, boxes = [], width = 0;

function amount(value) {
  const steps = data.steps;
  let i = 0;
  while (i + 1 < steps.length && value >= steps[i + 1][0]) i++;
  const scaled = value / steps[i][0];
  const whole = scaled >= 100 || scaled === Math.round(scaled);
  return (whole ? scaled.toFixed(0) : scaled.toPrecision(3)) + " " + steps[i][1];
}
function share(value, whole) { return (100 * value / Math.max(whole, 1e-300)).toFixed(2) + " %"; }
function describe(n) {
  let text = `${n.name}  ${amount(n.value)}, ${share(n.value, root.value)}`;
  if (n.self > 0) text += `, self ${share(n.self, root.value)}`;
  if (zoomed !== root) text += `, ${share(n.value, zoomed.value)} of what is shown`;
  if (data.compared) text += `, before ${amount(n.base)}, ${share(n.base, root.base)}`;
  if (n.module) text += `  [${n.module}${n.inlined ? ", inlined" : ""}]`;
  return text;
}
const hits = (n) => pattern !== null && n.name.toLowerCase().includes(pattern);

function draw() {
  const ratio = window.devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
  const ink = "#1b1b1b", hit = style.getPropertyValue("--hit"), height = (deepest + 1) * ROW;
  width = canvas.clientWidth;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.height = height + "px";
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.font = FONT;
  pen.textBaseline = "middle";
  const character = pen.measureText("0").width, scale = width / Math.max(zoomed.size, 1e-300);
  const ancestors = new Set();
  for (let n = zoomed; n.parent >= 0; n = nodes[n.parent]) ancestors.add(nodes[n.parent]);
  boxes = [];
  for (const n of nodes) {
    let x = (n.start - zoomed.start) * scale, w = n.size * scale;
    if (ancestors.has(n)) { x = 0; w = width; }
    else if (n.start + n.size <= zoomed.start || n.start >= zoomed.start + zoomed.size || w < LEAST) continue;
    const y = height - (n.depth + 1) * ROW;
    pen.globalAlpha = ancestors.has(n) ? 0.45 : 1;
    pen.fillStyle = hits(n) ? hit : n.color;
    pen.fillRect(x, y, Math.max(LEAST, w - 0.6), ROW - 1);
    const room = Math.floor((w - 6) / character);
    if (room >= 3) {
      pen.fillStyle = hits(n) ? "#fff" : ink;
      pen.fillText(n.name.length > room ? n.name.slice(0, room - 2) + ".." : n.name, x + 3, y + ROW / 2);
    }
    boxes.push([x, y, w, n]);
  }
  pen.globalAlpha = 1;
}
function under(event) {
  const area = canvas.getBoundingClientRect(), x = event.clientX - area.left, y = event.clientY - area.top;
  for (let i = boxes.length - 1; i >= 0; i--) {
    const [left, top, w, n] = boxes[i];
    if (x >= left && x < left + w && y >= top && y < top + ROW) return n;
  }
  return null;
}
function zoom(n) { zoomed = n; id("about").textContent = describe(n); draw(); }
function search(text) {
  pattern = text.trim() === "" ? null : text.trim().toLowerCase();
  let found = 0, any = false;
  for (const n of nodes) {  // what lies within a frame that was found is in it already
    n.within = n.parent >= 0 && (nodes[n.parent].within || hits(nodes[n.parent]));
    if (!hits(n)) continue;
    any = true;
    if (!n.within) found += n.value;
  }
  id("found").textContent = pattern === null ? "" : any ? `${share(found, root.value)} of all` : "not found";
  draw();
}
canvas.addEventListener("mousemove", (event) => {
  const n = under(event);
  if (n) id("about").textContent = canvas.title = describe(n);
});
canvas.addEventListener("click", (event) => { const n = under(event); if (n) zoom(n); });
id("reset").addEventListener("click", () => { id("search").value = ""; search(""); zoom(root); });
id("search").addEventListener("input", (event) => search(event.target.value));
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== id("search")) { event.preventDefault(); id("search").focus(); }
  if (event.key === "Escape") id("reset").click();
});
window.addEventListener("resize", draw);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
zoom(root);
window.scrollTo(0, document.body.scrollHeight);
</script>
</body>
</html>
]==]
