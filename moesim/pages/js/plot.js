"use strict";
// Every plot of a page, as SVG: lines with bands, points with names, bars, cells of colour, rules.
//
// spec = { title, note, file, height,
//   x: { label, unit, how: "count" | "plain" | "share", log, categories: [text], range: [low, high] }, y: the same,
//   lines: [{ name, x, y, low, high (a band, or with whiskers: true a bar at each), colour, dash, marks, thin,
//     outside: [true where outside the data], quiet (not in the legend), label (of one of several of a name: faint, said near it) }],
//   points: [{ name, x, y, labels, colour, size, hollow }],
//   bars: [{ name, y, low, high, colour }]  (x.categories names the places),
//   cells: { x: [edges or categories], y: [...], z: [[row by row of y]], label, how, range },
//   rules: [{ x or y, text }] }
// colour: a place in the fixed cycle, or { share: 0 to 1 } on the scale of ordered things.
//
// const plot = moesim.plot(spec); root.append(plot.node); plot.update(spec) draws anew and keeps zoom and what is hidden.
(() => {
  const PLACES = 6;

  moesim.colour = function (colour) {
    if (typeof colour === "string") return colour;
    if (colour && typeof colour === "object")
      return `color-mix(in oklab, var(--high) ${Math.round(100 * colour.share)}%, var(--low))`;
    return `var(--c${(colour || 0) % 8})`;
  };

  function ticksOf(axis, low, high, room) {
    const most = Math.max(2, Math.min(PLACES, room));
    if (axis.categories) {
      const step = Math.ceil(axis.categories.length / Math.max(1, room));
      return axis.categories.map((text, i) => [i, text]).filter(([i]) => i % step === 0 && i >= low && i <= high);
    }
    const values = axis.log ? logTicks(low, high, most) : linearTicks(low, high, most);
    return values.map((value) => [value, moesim.say(value, axis.how, 4)]);
  }

  function linearTicks(low, high, most) {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough) || rough;
    const first = Math.ceil(low / step - 1e-9), out = [];
    for (let i = first; i * step <= high + 1e-9 * step && out.length < 50; i++) out.push(Number((i * step).toPrecision(12)));
    return out;
  }

  function logTicks(low, high, most) {
    const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
    for (const steps of [[1, 2, 5], [1, 3], [1]]) {
      const out = [];
      for (let e = first; e <= last; e++) for (const n of steps) out.push(Number(`${n}e${e}`));
      const inside = out.filter((value) => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9));
      if (inside.length <= most + 2 && inside.length >= 2) return inside;
    }
    const step = Math.max(1, Math.ceil((last - first) / most)), decades = [];
    for (let e = Math.ceil(Math.log10(low) - 1e-9); 10 ** e <= high * (1 + 1e-9); e += step) decades.push(Number(`1e${e}`));
    return decades.length >= 2 ? decades : linearTicks(low, high, most);
  }

  function valuesOf(spec, which) {
    const out = [];
    for (const line of spec.lines || []) {
      out.push(line[which]);
      if (which === "y") for (const edge of [line.low, line.high]) if (edge) out.push(edge);
    }
    for (const group of spec.points || []) out.push(group[which]);
    if (which === "y") for (const bar of spec.bars || []) out.push([0], bar.y, bar.low || [], bar.high || []);
    if (spec.cells) out.push(spec.cells[which].filter((v) => typeof v === "number"));
    for (const rule of spec.rules || []) if (rule[which] !== undefined) out.push([rule[which]]);
    return out;
  }

  function limits(spec, which, zoom) {
    const axis = spec[which];
    if (zoom) return zoom;
    if (axis.categories) return [-0.6, axis.categories.length - 0.4];
    if (axis.range) return axis.range;
    let low = Infinity, high = -Infinity;
    for (const values of valuesOf(spec, which)) for (const value of values) {
      if (value === null || !Number.isFinite(value) || (axis.log && value <= 0)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    if (low > high) return axis.log ? [1, 10] : [0, 1];
    if (low === high) return axis.log ? [low / 2, high * 2] : [low - (Math.abs(low) / 10 || 0.5), high + (Math.abs(high) / 10 || 0.5)];
    if (spec.cells) return [low, high];
    const pad = which === "y" || !axis.log ? 0.04 : 0.02;
    if (axis.log) return [low * (low / high) ** pad, high * (high / low) ** pad];
    const edge = spec.bars && which === "y";
    return [edge && low === 0 ? 0 : low - pad * (high - low), edge && high === 0 ? 0 : high + pad * (high - low)];
  }

  function scale(axis, [low, high], from, to) {
    const f = axis.log ? Math.log : (v) => v, a = f(low), b = f(high);
    const at = (value) => from + ((f(value) - a) / (b - a)) * (to - from);
    at.back = (pixel) => { const v = a + ((pixel - from) / (to - from)) * (b - a); return axis.log ? Math.exp(v) : v; };
    return at;
  }

  // A path through the points that there are; with `wanted` only along steps between neighbours of which either is.
  function pathOf(xs, ys, X, Y, wanted = null) {
    let path = "", open = false;
    for (let i = 0; i < xs.length; i++) {
      const x = X(xs[i]), y = ys[i] === null ? NaN : Y(ys[i]);
      if (!Number.isFinite(x) || !Number.isFinite(y)) { open = false; continue; }
      const joined = open && (!wanted || wanted(i) || wanted(i - 1));
      path += `${joined ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
      open = true;
    }
    return path;
  }

  function bandOf(line, X, Y) {
    const up = [], down = [];
    for (let i = 0; i < line.x.length; i++) {
      const [x, low, high] = [X(line.x[i]), Y(line.low[i]), Y(line.high[i])];
      if (line.low[i] === null || ![x, low, high].every(Number.isFinite)) continue;
      up.push(`${x.toFixed(1)} ${high.toFixed(1)}`);
      down.unshift(`${x.toFixed(1)} ${low.toFixed(1)}`);
    }
    return up.length > 1 ? `M${up.join("L")}L${down.join("L")}Z` : "";
  }

  function whiskersOf(line, X, Y) {
    const ends = line.x.map((x, i) => (line.low[i] === null ? [] : [X(x), Y(line.low[i]), Y(line.high[i])]));
    return ends.filter((one) => one.length && one.every(Number.isFinite)).map(([x, low, high]) => `M${x - 4} ${low}h8M${x} ${low}V${high}M${x - 4} ${high}h8`).join("");
  }

  const upTicks = (axis, [low, high], height) => ticksOf(axis, low, high, Math.floor(height / (axis.categories ? 15 : 46)));
  const LONGEST = 16;  // letters of a name beside an axis
  const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  const longest = (axis) => Math.max(0, ...axis.categories.map((text) => text.length));
  // Whether the names below an axis would run into each other if they lay flat.
  const crowded = (axis, width) => Boolean(axis.categories) && axis.categories.length * (7 * Math.min(LONGEST, longest(axis)) + 14) > width && longest(axis) > 3;

  // Pixels left of the plot, for the labels of its ticks and its name.
  const room = (axis, range, height) =>
    30 + 7 * Math.max(2, ...upTicks(axis, range, height).map(([, text]) => Math.min(text.length, LONGEST)));

  const nearest = function (values, wanted, f = (v) => v) {
    let best = -1, least = Infinity;
    values.forEach((value, i) => {
      const apart = value === null ? NaN : Math.abs(f(value) - f(wanted));
      if (apart < least) { least = apart; best = i; }
    });
    return best;
  };

  const named = (axis) => (axis.unit && axis.unit !== "1" ? `${axis.label} (${axis.unit})` : axis.label || "");

  // The name of an axis in so many letters: its unit alone where that is too long, since the title names it.
  const beside = (axis, most) => (named(axis).length > most && axis.unit && axis.unit !== "1" ? axis.unit : cut(named(axis), most));

  let count = 0;
  moesim.plot = function (first) {
    const sides = { left: 62, right: 14, top: 8, bottom: 44 };  // the left one grows with its labels
    let spec = first, cursor = null, drag = null;
    const state = { hidden: new Set(), x: null, y: null }, id = `plot${count++}`;
    const svg = moesim.shape("svg", { tabindex: 0, role: "img", "aria-labelledby": `${id}t ${id}d` });
    const title = moesim.make("figcaption", { id: `${id}t` }), legend = moesim.make("div", { class: "legend", role: "group", "aria-label": "curves shown" });
    const told = moesim.make("p", { id: `${id}d`, class: "away" });
    const readout = moesim.make("p", { class: "readout", "aria-live": "polite" });
    const details = moesim.make("div", {});
    const reset = moesim.button("whole range", () => { state.x = state.y = null; draw(); });
    const tools = moesim.make("div", { class: "tools" }, reset,
      moesim.button("table", () => details.replaceChildren(...(details.firstChild ? [] : [moesim.table(rows())]))),
      moesim.button("CSV", () => moesim.download(`${spec.file || "plot"}.csv`, moesim.csv(rows()))),
      moesim.button("SVG", () => moesim.download(`${spec.file || "plot"}.svg`, pictured(svg), "image/svg+xml")));
    const node = moesim.make("figure", { class: "plot" }, title, told, svg, readout, legend, tools, details);
    let frame = null, width = 0, slanted = false;

    function rows() {
      const out = [["series", named(spec.x), named(spec.y), "low", "high"]];
      const at = (i, x) => (spec.x.categories ? spec.x.categories[Math.round(x)] : x);
      for (const line of spec.lines || []) line.x.forEach((x, i) => out.push([line.label || line.name, at(i, x), line.y[i], line.low ? line.low[i] : null, line.high ? line.high[i] : null]));
      for (const group of spec.points || []) group.x.forEach((x, i) => out.push([group.labels ? group.labels[i] : group.name, at(i, x), group.y[i], null, null]));
      for (const bar of spec.bars || []) bar.y.forEach((y, i) => out.push([bar.name, spec.x.categories[i], y, bar.low ? bar.low[i] : null, bar.high ? bar.high[i] : null]));
      if (spec.cells) spec.cells.z.forEach((row, j) => row.forEach((z, i) => out.push([spec.cells.label, cellName(spec.x, spec.cells.x, i), cellName(spec.y, spec.cells.y, j), z, null])));
      return out;
    }

    const cellName = (axis, values, i) => (axis.categories ? axis.categories[i] : values[i]);
    const shown = (list) => (list || []).filter((one) => !state.hidden.has(one.name));

    function draw() {
      if (!width) return;
      const height = spec.height || (width < 480 ? 260 : 320);
      const kept = { ...spec, lines: shown(spec.lines), points: shown(spec.points), bars: shown(spec.bars) };
      sides.left = room(spec.y, limits(kept, "y", state.y), height);
      slanted = crowded(spec.x, width - sides.left - sides.right);
      sides.bottom = slanted ? 50 + 4.5 * Math.min(LONGEST, longest(spec.x)) : 44;
      const X = scale(spec.x, limits(kept, "x", state.x), sides.left, width - sides.right);
      const Y = scale(spec.y, limits(kept, "y", state.y), height - sides.bottom, sides.top);
      frame = { X, Y, height, kept, x: limits(kept, "x", state.x), y: limits(kept, "y", state.y) };
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("height", height);
      const inside = moesim.shape("g", { "clip-path": `url(#${id}c)` });
      svg.replaceChildren(
        moesim.shape("defs", {}, moesim.shape("clipPath", { id: `${id}c` }, moesim.shape("rect", {
          x: sides.left, y: sides.top, width: Math.max(1, width - sides.left - sides.right), height: height - sides.top - sides.bottom }))),
        axes(frame), inside);
      if (spec.cells) inside.append(...cells(frame));
      for (const line of kept.lines) if (line.low) inside.append(moesim.shape("path", line.whiskers ? { d: whiskersOf(line, X, Y), style: { stroke: moesim.colour(line.colour) } }
        : { d: bandOf(line, X, Y), style: { fill: moesim.colour(line.colour), opacity: "0.16" } }));
      bars(frame, inside);
      for (const line of kept.lines) inside.append(...stroked(line, X, Y));
      for (const group of kept.points) inside.append(...dots(group, X, Y));
      for (const rule of spec.rules || []) inside.append(...ruled(rule, frame));
      if (!inside.childNodes.length) svg.append(moesim.shape("text", { x: width / 2, y: height / 2, "text-anchor": "middle", class: "empty" }, "nothing to show here"));
      svg.append(moesim.shape("g", { class: "pointer" }));
      title.textContent = spec.title || "";
      told.textContent = described(kept);
      reset.hidden = !state.x && !state.y;
      keys();
      point();
    }

    function described(kept) {
      const range = ([low, high], axis) => (axis.categories ? `${axis.categories.length} names` : `${moesim.say(low, axis.how, 3)} to ${moesim.say(high, axis.how, 3)}`);
      const names = [...kept.lines, ...kept.points, ...kept.bars].map((one) => one.name).slice(0, 12).join(", ");
      return `${named(spec.y)} from ${range(frame.y, spec.y)} against ${named(spec.x)} from ${range(frame.x, spec.x)}` +
        `${names ? `; ${names}` : ""}. Arrow keys read values off, plus and minus zoom; the table has all numbers.`;
    }

    function axes({ X, Y, height, x, y }) {
      const g = moesim.shape("g", {}), bottom = height - sides.bottom, right = width - sides.right;
      const wide = slanted ? 15 : spec.x.categories ? longest(spec.x) * 7 + 14 : 64;
      for (const [value, text] of ticksOf(spec.x, x[0], x[1], Math.floor((right - sides.left) / Math.min(wide, 160)))) {
        const at = X(value);
        g.append(moesim.shape("line", { x1: at, x2: at, y1: sides.top, y2: bottom, class: "grid" }),
          moesim.shape("text", { x: at, y: bottom + 16, class: "tick", ...(slanted
            ? { "text-anchor": "end", transform: `rotate(-35 ${at} ${bottom + 12})` } : { "text-anchor": "middle" }) }, cut(text, slanted ? LONGEST : 24)));
      }
      for (const [value, text] of upTicks(spec.y, y, height)) {
        const at = Y(value);
        g.append(moesim.shape("line", { x1: sides.left, x2: right, y1: at, y2: at, class: "grid" }),
          moesim.shape("text", { x: sides.left - 6, y: at + 4, "text-anchor": "end", class: "tick" }, cut(text, LONGEST)));
      }
      g.append(moesim.shape("path", { d: `M${sides.left} ${sides.top}V${bottom}H${right}`, class: "frame" }),
        moesim.shape("text", { x: (sides.left + right) / 2, y: height - 8, "text-anchor": "middle", class: "axis" }, named(spec.x)),
        moesim.shape("text", { x: 13, y: (sides.top + bottom) / 2, "text-anchor": "middle", class: "axis", transform: `rotate(-90 13 ${(sides.top + bottom) / 2})` }, beside(spec.y, Math.floor((bottom - sides.top) / 6))));
      return g;
    }

    function stroked(line, X, Y) {
      const style = { stroke: moesim.colour(line.colour), fill: "none", "stroke-width": line.thin ? "1" : "2", opacity: line.label ? "var(--faint)" : "1" };
      const dash = line.dash ? "6 3" : null, out = [];
      if (!line.outside || !line.outside.some(Boolean)) out.push(moesim.shape("path", { d: pathOf(line.x, line.y, X, Y), "stroke-dasharray": dash, style }));
      else {
        out.push(moesim.shape("path", { d: pathOf(line.x, line.y, X, Y, (i) => !line.outside[i]), "stroke-dasharray": dash, style }));
        out.push(moesim.shape("path", { d: pathOf(line.x, line.y, X, Y, (i) => line.outside[i]), "stroke-dasharray": "5 4", style: { ...style, opacity: "var(--faint)" } }));
      }
      if (line.marks) out.push(...dots({ ...line, size: 2.5 }, X, Y));
      return out;
    }

    function dots(group, X, Y) {
      const colour = moesim.colour(group.colour), out = [];
      for (let i = 0; i < group.x.length; i++) {
        const [cx, cy] = [X(group.x[i]), group.y[i] === null ? NaN : Y(group.y[i])];
        if (![cx, cy].every(Number.isFinite)) continue;
        out.push(moesim.shape("circle", { cx: cx.toFixed(1), cy: cy.toFixed(1), r: group.size || 4,
          style: { fill: group.hollow && (group.hollow === true || group.hollow[i]) ? "var(--back)" : colour, stroke: colour, "stroke-width": "1.5" } }));
      }
      return out;
    }

    function bars({ X, Y, kept }, inside) {
      const slot = Math.abs(X(1) - X(0)) * 0.8, each = slot / Math.max(1, kept.bars.length), zero = Y(Math.max(0, frame.y[0]));
      kept.bars.forEach((bar, k) => bar.y.forEach((value, i) => {
        if (value === null || !Number.isFinite(value)) return;
        const x = X(i) - slot / 2 + k * each, y = Y(value), middle = x + each / 2;
        inside.append(moesim.shape("rect", { x, width: Math.max(1, each - 1), y: Math.min(y, zero), height: Math.abs(y - zero), style: { fill: moesim.colour(bar.colour) } }));
        if (bar.low && bar.low[i] !== null) inside.append(moesim.shape("path", { d: `M${middle} ${Y(bar.low[i])}V${Y(bar.high[i])}`, style: { stroke: "var(--text)" } }));
      }));
    }

    function cells({ X, Y }) {
      const { x, y, z, range } = spec.cells, out = [], [low, high] = range || moesim.range(z.flat());
      const edges = (axis, values, at, i) => {
        if (axis.categories) return [at(i - 0.5), at(i + 0.5)];
        const mid = (a, b) => (axis.log ? Math.sqrt(a * b) : (a + b) / 2);
        const [a, b, c] = [values[i - 1], values[i], values[i + 1]];
        const before = a === undefined ? b : mid(a, b), after = c === undefined ? b : mid(b, c);
        return [at(before), at(after)];
      };
      z.forEach((row, j) => row.forEach((value, i) => {
        if (value === null || !Number.isFinite(value)) return;
        const [x1, x2] = edges(spec.x, x, X, i), [y1, y2] = edges(spec.y, y, Y, j);
        const share = high > low ? (value - low) / (high - low) : 0;
        out.push(moesim.shape("rect", { x: Math.min(x1, x2), y: Math.min(y1, y2), width: Math.abs(x2 - x1) + 0.5, height: Math.abs(y2 - y1) + 0.5,
          style: { fill: `color-mix(in oklab, var(--high) ${Math.round(100 * share)}%, var(--low))` } }));
      }));
      return out;
    }

    function ruled(rule, { X, Y, height }) {
      const upright = rule.x !== undefined, at = upright ? X(rule.x) : Y(rule.y);
      const ends = upright ? { x1: at, x2: at, y1: sides.top, y2: height - sides.bottom } : { y1: at, y2: at, x1: sides.left, x2: width - sides.right };
      const place = upright ? at > width - 80 ? { x: at - 4, y: height - sides.bottom - 6, "text-anchor": "end" } : { x: at + 4, y: height - sides.bottom - 6 } : { x: sides.left + 6, y: at - 4 < sides.top + 10 ? at + 13 : at - 4 };
      return [moesim.shape("line", { ...ends, class: "cursor" }), moesim.shape("text", { ...place, class: "tick" }, rule.text || "")];
    }

    function keys() {
      const all = [...(spec.lines || []), ...(spec.points || []), ...(spec.bars || [])].filter((one) => one.name && !one.quiet);
      const held = all.filter((one, i) => all.findIndex((other) => other.name === one.name) === i);
      const same = held.length === legend.childNodes.length && held.every((one, i) => legend.childNodes[i].dataset.name === one.name && legend.childNodes[i].ariaPressed === String(!state.hidden.has(one.name)));
      if (same || (held.length < 2 && !legend.childNodes.length && !spec.cells)) return;
      legend.replaceChildren(...(held.length < 2 ? [] : held.map((one) => moesim.button("", () => {
        if (!state.hidden.delete(one.name)) state.hidden.add(one.name);
        draw();
      }, { "aria-pressed": String(!state.hidden.has(one.name)), "data-name": one.name }))));
      [...legend.childNodes].forEach((button, i) => button.append(moesim.make("i", { style: { color: moesim.colour(held[i].colour), "border-top-style": held[i].dash ? "dashed" : "solid" } }), held[i].name));
    }

    // What the cursor says: of every line its value nearest to it, of points and cells the one under it.
    function point() {
      const layer = svg.querySelector(".pointer");
      if (!layer || cursor === null) { readout.textContent = spec.note || ""; if (layer) layer.replaceChildren(); return; }
      const { X, Y, kept, height } = frame, wanted = X.back(cursor.x), parts = [], marks = [];
      const spot = (x, y, colour) => { if (Number.isFinite(X(x)) && Number.isFinite(Y(y))) marks.push(moesim.shape("circle", { cx: X(x), cy: Y(y), r: 4, style: { fill: moesim.colour(colour), stroke: "var(--back)" } })); };
      const f = spec.x.log ? Math.log : (v) => v;
      let at = null;
      for (const line of kept.lines.filter((line) => !line.quiet)) {
        const i = nearest(line.x, wanted, f);
        if (i < 0 || line.y[i] === null || !Number.isFinite(line.y[i])) continue;
        if (at === null) at = line.x[i];
        const band = line.low && line.low[i] !== null ? ` (${moesim.say(line.low[i], spec.y.how, 6)} to ${moesim.say(line.high[i], spec.y.how, 6)})` : "";
        const out = line.outside && line.outside[i] ? ", outside the data" : "";
        const elsewhere = Math.abs(X(line.x[i]) - X(at)) > 4 && !spec.x.categories ? ` at ${moesim.say(line.x[i], spec.x.how)}` : "";
        parts.push(`${line.name} ${moesim.say(line.y[i], spec.y.how, 6)}${band}${elsewhere}${out}`);
        spot(line.x[i], line.y[i], line.colour);
      }
      if (at !== null) parts.unshift(`${spec.x.label} ${spec.x.categories ? spec.x.categories[Math.round(at)] : moesim.say(at, spec.x.how)}`);
      const near = closest([...kept.points, ...kept.lines.filter((line) => line.label)]);
      if (near) {
        const { group, i } = near, name = group.labels ? group.labels[i] : group.label || group.name;
        parts.push(`${name}: ${spec.x.categories ? spec.x.categories[group.x[i]] : moesim.say(group.x[i], spec.x.how)}, ${moesim.say(group.y[i], spec.y.how, 6)}`);
        spot(group.x[i], group.y[i], group.colour);
      }
      const place = Math.round(wanted);
      if (kept.bars.length && spec.x.categories[place] !== undefined) parts.push(`${spec.x.categories[place]}: ${kept.bars.map((bar) => `${bar.name} ${moesim.say(bar.y[place], spec.y.how)}`).join(", ")}`);
      if (spec.cells) parts.push(cellSaid(wanted, Y.back(cursor.y)));
      layer.replaceChildren(moesim.shape("line", { x1: cursor.x, x2: cursor.x, y1: sides.top, y2: height - sides.bottom, class: "cursor" }), ...marks);
      if (drag && Math.abs(drag.x - cursor.x) > 4) layer.append(moesim.shape("rect", { class: "zoom", x: Math.min(drag.x, cursor.x), width: Math.abs(drag.x - cursor.x), y: sides.top, height: height - sides.top - sides.bottom }));
      readout.textContent = parts.join("; ") || spec.note || "";
    }

    function closest(groups) {
      let best = null, least = 18 ** 2;
      for (const group of groups) group.x.forEach((x, i) => {
        const apart = (frame.X(x) - cursor.x) ** 2 + (frame.Y(group.y[i]) - cursor.y) ** 2;
        if (apart < least) { least = apart; best = { group, i }; }
      });
      return best;
    }

    function cellSaid(x, y) {
      const { cells } = spec, place = (axis, values, wanted) => (axis.categories ? Math.round(wanted) : nearest(values, wanted, axis.log ? Math.log : undefined));
      const i = place(spec.x, cells.x, x), j = place(spec.y, cells.y, y), value = (cells.z[j] || [])[i];
      if (value === undefined) return "";
      return `${spec.x.label} ${moesim.say(cellName(spec.x, cells.x, i), spec.x.how)}, ${spec.y.label} ${moesim.say(cellName(spec.y, cells.y, j), spec.y.how)}: ${cells.label} ${moesim.say(value, cells.how)}`;
    }

    const here = (event) => { const box = svg.getBoundingClientRect(); return { x: event.clientX - box.left, y: event.clientY - box.top }; };
    const clamped = (x) => Math.min(width - sides.right, Math.max(sides.left, x));

    function zoom(from, to) {
      const [a, b] = [frame.X.back(clamped(Math.min(from, to))), frame.X.back(clamped(Math.max(from, to)))];
      if (b > a) { state.x = [a, b]; draw(); }
    }

    const onKey = (event) => {
      if (!frame) return;
      const step = (width - sides.left - sides.right) / 60, middle = cursor ? cursor.x : width / 2, y = cursor ? cursor.y : frame.height / 2;
      const span = (width - sides.left - sides.right) / 4;
      const moves = {
        ArrowLeft: () => { cursor = { x: clamped(middle - step), y }; }, ArrowRight: () => { cursor = { x: clamped(middle + step), y }; },
        ArrowUp: () => { cursor = { x: middle, y: y - step }; }, ArrowDown: () => { cursor = { x: middle, y: y + step }; },
        Home: () => { cursor = { x: sides.left, y }; }, End: () => { cursor = { x: width - sides.right, y }; },
        Escape: () => { cursor = null; }, "+": () => zoom(middle - span, middle + span), "-": () => { state.x = state.y = null; draw(); },
      };
      if (!moves[event.key]) return;
      event.preventDefault();
      moves[event.key]();
      point();
    };
    moesim.fill(svg, { on: {
      pointermove: (event) => { cursor = here(event); point(); },
      pointerleave: () => { if (!drag) { cursor = null; point(); } },
      pointerdown: (event) => { cursor = drag = here(event); if (event.pointerType === "mouse") svg.setPointerCapture(event.pointerId); point(); },
      pointerup: (event) => {
        const from = drag, to = here(event);
        drag = null;
        if (from && event.pointerType === "mouse" && Math.abs(from.x - to.x) > 8) zoom(from.x, to.x);
        else point();
      },
      pointercancel: () => { drag = null; },
      dblclick: () => { state.x = state.y = null; draw(); },
      keydown: onKey,
    } }, []);
    new ResizeObserver(([entry]) => { const now = Math.round(entry.contentRect.width); if (now && now !== width) { width = now; draw(); } }).observe(node);
    return { node, update: (next) => { spec = next; draw(); }, get spec() { return spec; } };
  };

  // The plot as a file of its own, with the colours that it has on the page.
  function pictured(svg) {
    const copy = svg.cloneNode(true), box = svg.getBoundingClientRect();
    const from = [svg, ...svg.querySelectorAll("*")], to = [copy, ...copy.querySelectorAll("*")];
    from.forEach((element, i) => {
      const style = getComputedStyle(element);
      for (const name of ["stroke", "fill", "opacity", "stroke-width", "stroke-dasharray", "font-size", "font-family"]) to[i].style.setProperty(name, style.getPropertyValue(name));
    });
    copy.setAttribute("width", box.width);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    copy.style.background = getComputedStyle(document.body).backgroundColor;
    return new XMLSerializer().serializeToString(copy);
  }

  // A section of kind "plot": one spec, or `panels` of several; or `frames` of these with a `slider` through them, or to
  // `choose` from by one name (each has its `text`) or several (each has a text for each of them, `at`).
  moesim.kinds.plot = function (content, root) {
    const { frames = [content], start = 0, slider, choose, note } = content;
    const specs = (frame) => frame.panels || [frame.spec];
    const plots = specs(frames[start]).map((spec) => moesim.plot(spec));
    const show = (frame) => specs(frame).forEach((spec, i) => plots[i].update(spec));
    const controls = choose ? chosen([choose].flat(), frames, frames[start], show)
      : [moesim.slider(slider, frames.length, start, (i) => frames[i].text, (i) => show(frames[i]))];
    if (note) root.append(moesim.make("p", { class: "note" }, note));
    if (frames.length > 1) root.append(moesim.make("div", { class: plots.length > 1 ? "controls held" : "controls" }, controls));
    root.append(moesim.make("div", { class: plots.length > 1 ? "panels" : null }, plots.map((plot) => plot.node)));
  };

  // A choice for each name; where no frame has all that is chosen, the one that keeps most of it.
  function chosen(names, frames, now, show) {
    const at = (frame) => frame.at || [frame.text], kept = (frame) => at(frame).filter((text, k) => text === at(now)[k]).length;
    const labels = names.map((name, k) => moesim.select(name, [...new Set(frames.map((frame) => at(frame)[k]))], at(now)[k], (value) => {
      now = frames.filter((frame) => at(frame)[k] === value).reduce((best, frame) => (kept(frame) > kept(best) ? frame : best));
      labels.forEach((label, i) => { label.lastChild.value = at(now)[i]; });
      show(now);
    }));
    return labels.filter((label) => label.lastChild.length > 1);
  }
})();
