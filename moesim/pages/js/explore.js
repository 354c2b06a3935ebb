"use strict";
// Any variable of a Dataset: along a dim, with a curve for each place along a second one, at a place of every other.
moesim.kinds.explore = function (content, root) {
  const { variables, labels, own } = content;
  if (content.note) root.append(moesim.make("p", { class: "note" }, content.note));
  if (!own.length) { root.append(moesim.make("p", {}, "This result has no variables.")); return; }
  const plottable = (name) => variables[name].dims.length && !variables[name].text;
  const first = ["loss", "optimal_loss", "best_sparsity"].find((name) => own.includes(name) && plottable(name));
  const chosen = { name: first || own.find(plottable) || own[0], at: {} };
  const controls = moesim.make("div", { class: "controls" }), place = moesim.make("div", {});
  root.append(controls, place);
  const said = (name) => (variables[name].long_name ? `${name}: ${variables[name].long_name}` : name);
  const numeric = (dim) => labels[dim].every((value) => typeof value === "number");
  const longest = (dims) => dims.reduce((a, b) => (labels[b].length > labels[a].length ? b : a), dims[0]);

  function choose(name) {
    chosen.name = name;
    const dims = variables[name].dims;
    chosen.along = longest(dims.filter(numeric).length ? dims.filter(numeric) : dims);
    chosen.curves = dims.find((dim) => dim !== chosen.along && labels[dim].length <= 12) || "";
    chosen.at = Object.fromEntries(dims.map((dim) => [dim, 0]));
    offer();
  }

  function offer() {
    const { dims } = variables[chosen.name];
    controls.replaceChildren(moesim.select("variable", own.map((name) => [name, said(name)]), chosen.name, choose));
    if (plottable(chosen.name)) {
      controls.append(moesim.select("along", dims, chosen.along, (dim) => {
        if (dim === chosen.curves) chosen.curves = "";
        chosen.along = dim;
        offer();
      }));
      const others = dims.filter((dim) => dim !== chosen.along);
      if (others.length) controls.append(moesim.select("a curve for each", [["", "none"], ...others], chosen.curves, (dim) => {
        chosen.curves = dim;
        offer();
      }));
      for (const dim of others.filter((dim) => dim !== chosen.curves && labels[dim].length > 1))
        controls.append(moesim.slider(dim, labels[dim].length, chosen.at[dim],
          (i) => moesim.say(labels[dim][i], moesim.manner(dim)), (i) => { chosen.at[dim] = i; show(); }));
    }
    controls.append(moesim.button("download CSV", () => moesim.download(`${chosen.name}.csv`, moesim.csv(rows()))));
    show(true);
  }

  // Where in the values a cell stands: of `at`, a place for each dim.
  function index(variable, at) {
    return variable.dims.reduce((sum, dim, i) => sum * variable.shape[i] + at[dim], 0);
  }

  function rows() {
    const variable = variables[chosen.name], { dims, shape } = variable;
    const body = variable.values.map((value, i) => {
      const places = [];
      for (let k = dims.length - 1, left = i; k >= 0; k--) { places.unshift(left % shape[k]); left = Math.floor(left / shape[k]); }
      return [...places.map((place, k) => labels[dims[k]][place]), value];
    });
    return [[...dims, chosen.name], ...body];
  }

  function spec() {
    const variable = variables[chosen.name], { along, curves } = chosen;
    const x = labels[along], categories = numeric(along) ? null : x;
    const places = curves ? spread(labels[curves].length) : [0];
    const lines = places.map((i, k, all) => ({
      name: curves ? `${curves} ${moesim.say(labels[curves][i], moesim.manner(curves))}` : chosen.name,
      x: categories ? x.map((_, k) => k) : x,
      y: x.map((_, k) => variable.values[index(variable, { ...chosen.at, [along]: k, ...(curves ? { [curves]: i } : {}) })]),
      colour: curves && numeric(curves) ? { share: all.length > 1 ? k / (all.length - 1) : 0 } : k,
      marks: x.length <= 40,
    }));
    const name = (n) => (variables[n] && variables[n].long_name ? variables[n].long_name : n);
    const unit = (n) => (variables[n] && variables[n].units ? variables[n].units : "");
    return {
      title: name(chosen.name), file: chosen.name,
      note: places.length < (curves ? labels[curves].length : 1) ? `${places.length} of ${labels[curves].length} ${curves} shown` : "",
      x: { label: name(along), unit: unit(along), how: moesim.manner(along), log: !categories && moesim.wide(x), categories },
      y: { label: name(chosen.name), unit: unit(chosen.name), how: moesim.manner(chosen.name), log: moesim.wide(variable.values) },
      lines,
    };
  }

  // Places along a dim for which there is a curve: all, or as many as can be told apart, evenly spread.
  const MOST = 24;
  const spread = (n) => Array.from({ length: Math.min(n, MOST) }, (_, i) => Math.round((i * (n - 1)) / Math.max(1, Math.min(n, MOST) - 1)));

  let plot = null;
  function show(anew = false) {
    if (!plottable(chosen.name)) { plot = null; place.replaceChildren(moesim.table(rows())); return; }
    if (plot && !anew) { plot.update(spec()); return; }
    plot = moesim.plot(spec());
    place.replaceChildren(plot.node);
  }
  choose(chosen.name);
};
