"use strict";
// The law of a result under sliders: isoFLOP curves, their optima, the best sparsity; solved here, at once.
(() => {
  const BANDS = 0.05, POINTS = 72, LADDER = 25, TINY = 1e-12;
  const AXES = { compute: "compute", sparsity: "sparsity", unique_tokens: "unique tokens" };
  const log1 = (s) => -Math.log1p(-s);

  // A slider over numbers: `f` and `back` turn them to and from the places of the slider.
  function numbers({ label, low, high, value, how, log, sparse, endless, unit = "", listener }) {
    const f = sparse ? log1 : log ? Math.log : (v) => v, back = sparse ? (t) => -Math.expm1(-t) : log ? Math.exp : (v) => v;
    const [a, b] = [f(low), f(high)], n = endless ? 1001 : 1000;
    const clean = (v) => Number(v.toPrecision(sparse ? 4 : 3));
    const valueAt = (i) => (endless && i === n ? Infinity : clean(back(a + (i / 1000) * (b - a))));
    const placeOf = (v) => (v === Infinity ? n : Math.round((1000 * (f(v) - a)) / (b - a)));
    const said = (v) => moesim.say(v, how, 4) + (unit && Number.isFinite(v) ? ` ${unit}` : "");
    const state = { value }, shortly = (v) => (v !== 0 && (Math.abs(v) >= 1e6 || Math.abs(v) < 1e-4) ? v.toExponential().replace("e+", "e") : v);
    const typed = moesim.make("input", { type: "number", step: "any", "aria-label": `${label}, typed`, on: {
      change: () => { const v = typed.value === "" && endless ? Infinity : Number(typed.value); if (!Number.isNaN(v) && typed.value !== "" || v === Infinity) set(v); } } });
    const input = moesim.make("input", { type: "range", min: 0, max: n, step: 1, "aria-label": label, on: { input: () => set(valueAt(+input.value), false) } });
    const out = moesim.make("output", {});
    function show(move = true) {
      if (move) input.value = Math.max(0, Math.min(n, placeOf(state.value)));
      input.setAttribute("aria-valuetext", said(state.value));
      out.textContent = said(state.value);
      typed.value = Number.isFinite(state.value) ? shortly(state.value) : "";
    }
    function set(v, move = true) { state.value = v; show(move); listener(v); }
    show();
    const node = moesim.make("div", { class: "number-slider" }, moesim.make("span", { class: "name" }, label), input, moesim.make("span", { class: "pair" }, out, typed));
    return { node, reset: (v) => { state.value = v; show(); } };
  }

  // One law at once; several, each when it is opened.
  moesim.kinds.live = function (content, root, result, code) {
    if (!content.closed) { begin(content, root, code); return; }
    const inside = moesim.make("div", {});
    root.append(moesim.make("details", { on: { toggle: () => { if (!inside.firstChild) begin(content, root, code, inside); } } },
      moesim.make("summary", {}, "open"), inside));
  };

  function begin(content, root, code, place = root) {
    const model = moesim.model(content, code), { axes, units, about } = content;
    const now = { excess: content.excess, anchor: content.taught, curves: content.curves, values: { ...content.values } };
    for (const name of Object.keys(AXES)) now[name] = axes[name][Math.floor((axes[name].length - 1) / 2)];
    const start = structuredClone(now);
    const draws = Object.entries(content.vary).filter(([, held]) => held.dim === "draw");
    const changed = () => Object.keys(now.values).filter((name) => now.values[name] !== start.values[name]);

    // The cell of a curve: its own value of what the curves differ in, and what the sliders say of the rest.
    const settings = (value) => ({ compute: now.compute, sparsity: now.sparsity, unique_tokens: now.unique_tokens, ...(value === undefined ? {} : { [now.curves]: value }), excess: now.excess, anchor: now.anchor, ...now.values });
    const drawn = (i, given) => ({ ...given, ...Object.fromEntries(draws.map(([name, held]) => [name, held.values[i]])) });
    const banded = () => draws.length && !changed().some((name) => draws.some(([own]) => own === name));

    const { outside } = model, known = content.known;
    const anywhere = (out) => out.length > 0;

    // ------------------------------------------------------------------ the controls
    const wide = (name) => { const finite = axes[name].filter(Number.isFinite); return finite.length ? moesim.range(finite) : [1e9, 1e9]; };
    const later = { waiting: 0 };
    const touched = () => { cancelAnimationFrame(later.waiting); later.waiting = requestAnimationFrame(answer); };
    const sliders = {
      compute: numbers({ label: "compute", unit: "FLOP", how: "plain", log: true, low: wide("compute")[0] / 1e2, high: wide("compute")[1] * 1e3, value: now.compute, listener: (v) => { now.compute = v; touched(); } }),
      unique_tokens: numbers({ label: "unique tokens", how: "count", log: true, endless: true, low: wide("unique_tokens")[0] / 1e2, high: wide("unique_tokens")[1] * 1e3, value: now.unique_tokens, listener: (v) => { now.unique_tokens = v; touched(); } }),
      sparsity: numbers({ label: "sparsity", how: "plain", sparse: true, low: 0, high: Math.max(0.998, content.bounds[1]), value: now.sparsity, listener: (v) => { now.sparsity = v; touched(); } }),
    };
    function slider(name) {
      const [part, own] = name.split(/\.(.*)/), { typical, domain, unit } = about[name], value = content.values[name];
      let [low, high] = [Math.min(typical[0], value), Math.max(typical[1], Number.isFinite(value) ? value : typical[1])];
      const log = low > 0 && high / low >= 20;
      if (log) { low /= 3; high *= 3; } else { const room = (high - low) * 0.5 || Math.abs(value) || 1; low -= room; high += room; }
      if (domain[0] !== null) low = Math.max(low, domain[0] === 0 && log ? low : domain[0] + (low <= domain[0] ? (high - domain[0]) * 1e-3 : 0));
      if (domain[1] !== null) high = Math.min(high, domain[1] - (high >= domain[1] ? 1e-3 * (domain[1] - low) : 0));
      const endless = domain[1] === null && part === "repetition" && /^(R_|[dn]_star)/.test(own);
      return (sliders[name] = numbers({ label: own, unit: unit === "1" ? "" : unit, how: "plain", log, endless, low, high, value, listener: (v) => { now.values[name] = v; touched(); } })).node;
    }
    const of = (part) => Object.keys(content.values).filter((name) => name.startsWith(`${part}.`));
    const varied = Object.keys(AXES).filter((name) => content.limited || name !== "unique_tokens");
    const curveChoice = moesim.select("a curve for each", varied.map((name) => [name, AXES[name]]), now.curves, (name) => { now.curves = name; touched(); });
    const excesses = ["none", "active", "total"].filter((name) => `loss.${name}` in code);
    const anchors = [["own", "optimum at this sparsity"], ["dense", "optimum of a dense model"], ["number", "parameters per unique token"]];
    const number = numbers({ label: "parameters per unique token", how: "plain", log: true, low: 1e-3, high: 1e2, value: typeof now.anchor === "number" ? now.anchor : 0.05, listener: (v) => { anchorNumber = v; now.anchor = v; touched(); } });
    let anchorNumber = typeof now.anchor === "number" ? now.anchor : 0.05;
    const repeating = content.repeats ? [
      excesses.length > 1 ? moesim.select("excess: which parameters are counted", excesses, now.excess, (name) => { now.excess = name; touched(); }) : null,
      content.measured ? moesim.select("anchor: counted against", anchors, typeof now.anchor === "number" ? "number" : now.anchor, (name) => { now.anchor = name === "number" ? anchorNumber : name; touched(); }) : null,
      content.measured ? number.node : null] : [];
    const reset = moesim.button("back to the result", () => {
      Object.assign(now, structuredClone(start));
      for (const name of Object.keys(AXES)) sliders[name].reset(now[name]);
      for (const name of Object.keys(now.values)) sliders[name].reset(now.values[name]);
      controls.querySelectorAll("select").forEach((select, i) => { select.value = [...select.options].find((option) => option.defaultSelected)?.value ?? select.options[0].value; });
      touched();
    });
    const group = (title, nodes, open = false) => (nodes.length ? moesim.make("details", { open }, moesim.make("summary", {}, title), nodes) : null);
    const controls = moesim.make("div", { class: "panel" },
      curveChoice, sliders.compute.node, content.limited ? sliders.unique_tokens.node : null, sliders.sparsity.node,
      group(`repetition: ${content.names.repetition}`, [...repeating.filter(Boolean), ...of("repetition").map(slider)], true),
      group(`law: ${content.names.law}`, of("law").map(slider)),
      group(`architecture: ${content.names.architecture}`, of("architecture").map(slider)), reset);

    // ------------------------------------------------------------------ the answers
    const lossAxis = { label: "loss", unit: "nat/token", how: "plain" };
    const isoflop = moesim.plot({ title: "isoFLOP curves", file: "isoflop", height: 360, x: { label: "active parameters", unit: "", how: "count", log: true }, y: lossAxis, lines: [] });
    const against = moesim.plot({ title: "Loss at the best size", file: "sparsity", x: { label: "sparsity", log: false }, y: lossAxis, lines: [] });
    const across = moesim.plot({ title: "The best sparsity", file: "best_sparsity", x: { label: "compute", unit: "FLOP", log: true, how: "plain" }, y: { label: "1/(1 − S) at the best sparsity", log: true, how: "plain" }, lines: [] });
    const table = moesim.make("div", {}), words = moesim.make("p", { class: "answer", "aria-live": "polite" }), evidence = moesim.make("div", {});
    const commands = moesim.make("div", {});
    place.append(moesim.make("div", { class: "live-layout" }, controls, moesim.make("div", { class: "answers" }, words, isoflop.node, table, moesim.make("div", { class: "panels" }, against.node, across.node), commands, evidence)));

    const epochs = (at) => (at.epochs > 0 ? ` (${moesim.say(at.epochs, "plain", 3)} epochs)` : "");
    const label = (name, value) => (name === "sparsity" ? `S ${moesim.say(value, "plain", 4)}` : name === "compute" ? `${moesim.say(value)} FLOP` : value === Infinity ? "unlimited tokens" : `${moesim.say(value, "count")} unique`);
    let answers = [];

    // At once: curves and optima.
    function answer() {
      number.node.hidden = !anchored() || typeof now.anchor !== "number";
      const began = performance.now(), values = axes[now.curves];
      answers = values.map((value, i) => {
        const v = model.cell(settings(value)), found = model.best(v), at = model.run(v, found.log_size);
        return { value, v, found, at, out: outside(v, at), colour: { share: values.length > 1 ? i / (values.length - 1) : 0 } };
      });
      const good = answers.filter((one) => one.found.status !== "failed");
      const sizes = good.map((one) => one.found.log_size), spread = Math.log(30) / (content.power === 1 ? 1 : 3);
      const low = Math.max(model.grid[0], Math.min(...sizes) - spread), high = Math.min(model.grid[model.grid.length - 1], Math.max(...sizes) + spread);
      const xs = Array.from({ length: POINTS }, (_, i) => low + (i / (POINTS - 1)) * (high - low));
      for (const one of answers) one.curve = xs.map((x) => { const at = model.run(one.v, x); return { ...at, out: anywhere(outside(one.v, at)) }; });
      later.xs = xs;
      drawCurves();
      tell();
      root.dataset.milliseconds = (performance.now() - began).toFixed(1);
      clearTimeout(later.second);
      clearTimeout(later.third);
      later.second = setTimeout(second, 0);
    }

    function drawCurves() {
      const best = answers.map((one) => one.found.loss).filter(Number.isFinite), [low, high] = moesim.range(best), room = Math.max(high - low, 0.1);
      isoflop.update({
        ...isoflop.spec, title: `isoFLOP curves, ${others()}`, note: "dots: optima; hollow and dashed: outside the data behind the law",
        y: { ...lossAxis, range: best.length ? [low - 0.08 * room, high + 0.7 * room] : undefined },
        lines: answers.map((one) => ({ name: label(now.curves, one.value), x: one.curve.map((at) => at.active_params), y: one.curve.map((at) => at.loss), outside: one.curve.map((at) => at.out), colour: one.colour, low: one.low, high: one.high })),
        points: answers.filter((one) => Number.isFinite(one.found.loss)).map((one) => ({ name: label(now.curves, one.value), quiet: true, x: [one.at.active_params], y: [one.at.loss], colour: one.colour, size: 5, hollow: anywhere(one.out), labels: [`optimum, ${label(now.curves, one.value)}`] })),
      });
    }

    const others = () => varied.filter((name) => name !== now.curves).map((name) => label(name, now[name])).join(", ");

    function tell() {
      const rows = answers.map(({ value, at, found, out, band }) => [label(now.curves, value), moesim.say(at.active_params, "count"), moesim.say(at.total_params, "count"), moesim.say(at.tokens, "count"), at.epochs ? moesim.say(at.epochs, "plain", 3) : "–", moesim.say(found.loss, "plain", 5), ...(draws.length ? [band ? `${moesim.say(band[0], "count")} to ${moesim.say(band[1], "count")}` : "…"] : []), [found.status, ...(anywhere(out) ? [`outside: ${[...new Set(out)].map((name) => name.replaceAll("_", " ")).join(", ")}`] : [])].join("; ")]);
      table.replaceChildren(moesim.table([["curve", "best active", "total", "tokens", "epochs", "loss", ...(draws.length ? ["active, 90 %"] : []), "status"], ...rows], { caption: "The best run of each curve" }));
      commands.replaceChildren(...[moesim.make("h4", {}, "The command that gives this"), content.chosen.note ? moesim.make("p", { class: "note" }, content.chosen.note) : null, ...[shell(), python()].map((text) => moesim.make("div", { class: "command" }, moesim.make("code", {}, text), moesim.copier("copy", () => text)))].filter(Boolean));
    }

    // Then: the best sparsity, along sparsity and along compute.
    function second() {
      const began = performance.now();
      against.node.hidden = across.node.hidden = content.dense;
      const given = settings(), v = model.cell(given), found = content.dense ? { ...model.best(v), cell: v, sparsity: now.sparsity } : model.bestSparsity(v, content.bounds), at = model.run(found.cell, found.log_size), out = outside(found.cell, at);
      words.textContent = Number.isFinite(found.loss)
        ? `At ${varied.filter((name) => name !== "sparsity").map((name) => label(name, now[name])).join(" and ")}: ${content.dense ? "the best run" : `best sparsity ${moesim.say(found.sparsity, "plain", 4)}`}${found.status === "inside" ? "" : ` (${found.status})`}, ${moesim.say(at.active_params, "count")} active of ${moesim.say(at.total_params, "count")} parameters, ${moesim.say(at.tokens, "count")} tokens${epochs(at)}, loss ${moesim.say(found.loss, "plain", 5)} nat/token${anywhere(out) ? "; outside the data" : ""}.`
        : "Here no model has a loss by this law.";
      root.dataset.best = JSON.stringify({ sparsity: found.sparsity, loss: found.loss, active_params: at.active_params, status: found.status });
      if (content.dense) { after(); return; }
      const data = now.unique_tokens === Infinity ? [Infinity] : [now.unique_tokens, Infinity];
      const rungs = Array.from({ length: LADDER }, (_, i) => -Math.expm1(-(log1(content.bounds[0]) + (i / (LADDER - 1)) * (log1(content.bounds[1]) - log1(content.bounds[0])))));
      const places = [0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99].filter((s) => s >= content.bounds[0] && s <= content.bounds[1]);
      const ladder = data.map((unique, k) => {
        const runs = rungs.map((s) => { const w = model.cell({ ...given, sparsity: s, unique_tokens: unique }), best = model.best(w), at = model.run(w, best.log_size); return { s, loss: best.loss, out: anywhere(outside(w, at)) }; });
        return { name: label("unique_tokens", unique), x: runs.map(({ s }) => 1 / (1 - s)), y: runs.map(({ loss }) => loss), outside: runs.map(({ out }) => out), colour: k };
      });
      against.update({ ...against.spec, title: `Loss at the best size, ${label("compute", now.compute)}`, x: { label: "experts per active expert, 1/(1 − S)", log: true, how: "plain" }, lines: ladder,
        points: Number.isFinite(found.loss) ? [{ name: "best sparsity", x: [1 / (1 - found.sparsity)], y: [found.loss], colour: 0, size: 6, labels: [`best sparsity ${moesim.say(found.sparsity, "plain", 4)}`] }] : [] });
      later.data = data;
      later.rungs = { at: 0, lines: data.map((unique, k) => ({ name: label("unique_tokens", unique), x: [], y: [], outside: [], colour: k })) };
      root.dataset.second = (performance.now() - began).toFixed(1);
      later.third = setTimeout(third, 0);
    }

    // Then, piece by piece: the best sparsity over budgets, and the bands of draws.
    function third() {
      const began = performance.now(), n = 13, { lines } = later.rungs;
      while (later.rungs.at < n * lines.length && performance.now() - began < 30) {
        const k = Math.floor(later.rungs.at / n), compute = now.compute * 10 ** ((later.rungs.at % n) / 3 - 2);
        const found = model.bestSparsity(model.cell({ ...settings(), compute, unique_tokens: later.data[k] }), content.bounds);
        const at = model.run(found.cell, found.log_size);
        lines[k].x.push(compute); lines[k].y.push(1 / (1 - found.sparsity)); lines[k].outside.push(anywhere(outside(found.cell, at)));
        later.rungs.at += 1;
      }
      if (later.rungs.at < n * lines.length) { later.third = setTimeout(third, 0); return; }
      across.update({ ...across.spec, lines: lines.map((line) => ({ ...line, marks: true })), rules: [{ x: now.compute, text: "now" }] });
      after();
    }

    function after() {
      later.band = 0;
      if (banded()) later.third = setTimeout(bands, 0);
      else root.dataset.done = String(Number(root.dataset.done || 0) + 1);
    }

    function bands() {
      const one = answers[later.band], n = draws[0][1].values.length, xs = later.xs, columns = xs.map(() => []), sizes = [];
      for (let i = 0; i < n; i++) {
        const v = model.cell(drawn(i, settings(one.value)));
        xs.forEach((x, k) => columns[k].push(model.loss(v, x)));
        if (i % 4 === 0) sizes.push(model.run(v, model.best(v).log_size).active_params);
      }
      const ends = (values) => { const kept = values.filter((v) => !Number.isNaN(v)).sort((a, b) => a - b); const q = (p) => { const at = p * (kept.length - 1), i = Math.floor(at); return kept.length ? kept[i] + (at - i) * ((kept[i + 1] ?? kept[i]) - kept[i]) : NaN; }; return [q(BANDS), q(1 - BANDS)]; };
      const pairs = columns.map(ends);
      one.low = pairs.map(([a]) => a);
      one.high = pairs.map(([, b]) => b);
      one.band = ends(sizes);
      later.band += 1;
      if (later.band < answers.length) { later.third = setTimeout(bands, 0); return; }
      drawCurves();
      tell();
      root.dataset.done = String(Number(root.dataset.done || 0) + 1);
    }

    // ------------------------------------------------------------------ commands
    const bare = (text) => text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e]/g, "?");
    const quoted = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${bare(word).replaceAll("'", `'\\''`)}'`);
    const plainly = (v) => (v === Infinity ? ".inf" : Math.abs(v) >= 1e7 ? v.toExponential().replace("e+", "e") : String(v));
    const listed = (values) => (values.length === 1 ? plainly(values[0]) : `[${values.map(plainly).join(",")}]`);
    const asked = () => varied.map((name) => [name, name === now.curves ? axes[name] : [now[name]]]);
    const anchored = () => content.measured && now.excess !== "none";

    const given = () => ({ ...content.chosen.differ, ...Object.fromEntries(changed().map((name) => [name, now.values[name]])) });
    function shell() {
      const words = [...Object.entries(content.chosen.files).map(([part, file]) => `${part}=${file}`),
        ...asked().map(([name, values]) => `space.${name}=${listed(values)}`),
        ...(content.repeats ? [`repetition.excess=${now.excess}`, ...(anchored() ? [`repetition.taught=${now.anchor}`] : [])] : []),
        ...Object.entries(given()).map(([name, value]) => `${config(name)}=${plainly(value)}`)];
      return ["moesim", "sweep", ...words.map(quoted)].join(" ");
    }
    const config = (name) => { const [part, own] = name.split(/\.(.*)/); return `${part}.${part === "architecture" ? "fields" : "coefficients"}.${own}`; };

    function python() {
      const text = (value) => JSON.stringify(bare(value)), of = (v) => (v === Infinity ? "float('inf')" : plainly(v));
      const list = (values) => (values.length === 1 ? of(values[0]) : `[${values.map(of).join(", ")}]`);
      const part = (kind, extra = []) => {
        const own = [...extra, ...Object.entries(given()).filter(([name]) => name.startsWith(`${kind}.`)).map(([name, value]) => `${name.split(/\.(.*)/)[1]}=${of(value)}`)];
        return `moesim.load_${kind}(${[text(content.chosen.files[kind]), ...own].join(", ")})`;
      };
      const how = content.repeats ? [`excess=${text(now.excess)}`, ...(anchored() ? [`taught=${typeof now.anchor === "number" ? now.anchor : text(now.anchor)}`] : [])] : [];
      return `moesim.sweep(${[part("law"), `repetition=${part("repetition", how)}`, `architecture=${part("architecture")}`, ...asked().map(([name, values]) => `${name}=${list(values)}`)].join(", ")})`;
    }

    // ------------------------------------------------------------------ evidence
    function tellEvidence() {
      const said = (name) => (units[name] ? units[name][0] : name), range = (name, [low, high]) => `${said(name)} ${moesim.say(low, moesim.manner(name), 4)}${high === low ? "" : ` to ${moesim.say(high, moesim.manner(name), 4)}`}`;
      const parts = ["law", "repetition", "architecture"].map((part) => {
        const { source, marking, caveats, definitions, data_range: ranges } = known[part];
        const lines = [...Object.entries(ranges).map(([name, pair]) => `data: ${range(name, pair)}`), ...Object.entries(definitions).map(([name, text]) => `${name}: ${text}`), ...caveats];
        return moesim.make("div", {}, moesim.make("p", {}, moesim.make("strong", {}, `${part} ${content.names[part]}`), source ? `: ${source}` : "", marking ? ` (${marking})` : ""), lines.length ? moesim.make("ul", {}, lines.map((line) => moesim.make("li", {}, line))) : null);
      });
      const readings = content.measured ? [moesim.make("p", {}, "Which parameters repetition counts is unmeasured. Readings: "), moesim.make("ul", {}, Object.entries(content.evidence).map(([name, text]) => moesim.make("li", {}, `${name}: ${text}`)))] : [];
      return [moesim.make("details", {}, moesim.make("summary", {}, "Evidence and caveats"), parts, readings)];
    }

    evidence.append(...tellEvidence());
    answer();
    root.model = model;  // for tests and the console
    root.shown = () => answers;
  }
})();
