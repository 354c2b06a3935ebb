"use strict";
// A model that Python wrote out (planning.formula): its loss, and what is solved of it: the size that the unique tokens
// can teach, the best size, the best sparsity. The same answers as laws.wrapped, planning.size and planning.sparsity.
moesim.power = (x, y) => (x === 1 || (x === -1 && Math.abs(y) === Infinity) ? 1 : Math.pow(x, y));
moesim.logaddexp = (x, y) => (x === y ? x + Math.LN2 : Math.max(x, y) + Math.log1p(Math.exp(-Math.abs(x - y))));

// A root of f between a and b, where it has the values fa and fb of different signs (Chandrupatla 1997).
moesim.root = function (f, a, b, fa, fb, within = 1e-14) {
  let share = 0.5, c = a, fc = fa;
  for (let i = 0; i < 100; i++) {
    const x = a + share * (b - a), y = f(x);
    if (Number.isNaN(y)) return NaN;
    if (Math.sign(y) === Math.sign(fa)) { c = a; fc = fa; } else { c = b; b = a; fc = fb; fb = fa; }
    a = x; fa = y;
    const best = Math.abs(fa) < Math.abs(fb) ? a : b;
    const tight = (within + 4e-16 * Math.abs(best)) / Math.abs(b - a);
    if (tight > 0.5 || fa === 0 || fb === 0) return fa === 0 ? a : fb === 0 ? b : best;
    const xi = (a - b) / (c - b), phi = (fa - fb) / (fc - fb);
    share = 1 - Math.sqrt(1 - xi) < phi && phi < Math.sqrt(xi)
      ? (fa / (fb - fa)) * (fc / (fb - fc)) + ((c - a) / (b - a)) * (fa / (fc - fa)) * (fb / (fc - fb)) : 0.5;
    share = Math.min(1 - tight, Math.max(tight, share));
  }
  return a;
};

// The minimum of f between a and c around b, by value (golden section); as good as the rounding of f allows.
moesim.lowest = function (f, a, b, c) {
  const golden = (3 - Math.sqrt(5)) / 2;
  let x = b, y = f(b);
  for (let i = 0; i < 80 && c - a > 1e-9 * (1 + Math.abs(x)); i++) {
    const right = c - x > x - a, u = right ? x + golden * (c - x) : x - golden * (x - a), v = f(u);
    if (v <= y) { if (right) a = x; else c = x; x = u; y = v; } else if (right) c = u; else a = u;
  }
  return [x, y];
};

moesim.model = function (held, code) {
  const place = Object.fromEntries(code.inputs.map((name, i) => [name, i]));
  const spare = code.inputs.length;  // where an input goes that the formula does not ask for
  const at = (name) => (name in place ? place[name] : spare);
  const X = at("log_size"), C = at("compute"), S = at("sparsity"), U = at("unique_tokens"), D = at("tokens"), T = at("taught_params");
  const [first, last, n] = held.log_size, step = (last - first) / (n - 1);
  const grid = Float64Array.from({ length: n }, (_, i) => (i === n - 1 ? last : first + i * step));
  const EQUAL = 1e-14, NEAR = 0.05, LEVEL = 1e-4, STEP = Math.log(1.3), APART = 0.1, BESIDE = 1e-6;
  const quantities = Object.keys(code).filter((name) => name !== "inputs" && name !== "once" && name !== "gain" && !name.includes("."));
  const SPARSITIES = 17, WIDTH = 0.01;

  // The inputs of a cell: a mapping of compute, sparsity, unique_tokens and coefficients, what is counted as `excess`
  // and what it is measured by (`anchor`: own, dense, or parameters for each unique token); the taught size is solved.
  function cell({ excess = held.excess, anchor = held.taught, ...settings }) {
    const v = new Float64Array(spare + 1);
    for (const [name, value] of Object.entries({ ...held.values, ...settings })) v[at(name)] = value;
    const [loss, slope, counted] = ["loss", "slope", "counted"].map((name) => code[`${name}.${excess}`]);
    Object.assign(v, { loss, slope, counted });
    v.anchor = held.measured && excess !== "none" ? anchor : "";
    v.taught = teach(v);
    return v;
  }

  const moved = (v) => Object.assign(Float64Array.from(v), { loss: v.loss, slope: v.slope, counted: v.counted, anchor: v.anchor, taught: v.taught });
  const on = (f, v, x) => { v[X] = x; return f(v); };
  const loss = (v, x) => on(v.loss, v, x), slope = (v, x) => on(v.slope, v, x);

  // Sets what the unique tokens can teach, and gives its log size (NaN where the anchor is a number).
  function teach(v, near = null) {
    v[T] = Infinity;
    if (v.anchor === "" || v[U] === Infinity) return v.anchor === "" ? NaN : Infinity;
    if (typeof v.anchor === "number") { v[T] = v.anchor * v[U]; return NaN; }
    const w = Float64Array.from(v);
    if (v.anchor === "dense") w[S] = 0;
    const gain = (x) => {
      w[X] = x;
      w[D] = w[U];
      w[C] = code.flops_per_token(w) * w[U];
      return code.gain(w);
    };
    const x = taughtSize(gain, near);
    if (x === Infinity) return x;
    v[T] = on(v.counted, w, x);
    return x;
  }

  function taughtSize(gain, near) {
    if (near !== null && Number.isFinite(near)) {
      const [a, b] = [near - 0.05, near + 0.05], fa = gain(a), fb = gain(b);
      if (fa < 0 && fb > 0) return moesim.root(gain, a, b, fa, fb);
    }
    const start = gain(grid[0]);
    let before = start;
    for (let i = 1; i < n; i++) {
      const here = gain(grid[i]);
      if (before < 0 && here >= 0) return moesim.root(gain, grid[i - 1], grid[i], before, here);
      before = here;
    }
    return beyondGrid(gain, start, before);
  }

  // Beyond the grid: a size that counts parameters themselves is sought there too, as laws.wrapped does.
  function beyondGrid(gain, low, high) {
    for (let i = 1; i <= 40 && held.power === 1; i++) {
      const below = gain(first - i), above = gain(last + i);
      if (low >= 0 && below < 0) return moesim.root(gain, first - i, first - i + 1, below, gain(first - i + 1));
      if (high < 0 && above >= 0) return moesim.root(gain, last + i - 1, last + i, gain(last + i - 1), above);
    }
    return high < 0 ? Infinity : first;
  }

  // The log size at which a quantity that grows with it has a value; NaN where none in the range has.
  function sizeOf(f, v, value) {
    if (!(value > 0) || value === Infinity) return NaN;
    const apart = (x) => Math.log(on(f, v, x) / value), low = apart(grid[0]), high = apart(last);
    return low < 0 && high > 0 ? moesim.root(apart, grid[0], last, low, high) : NaN;
  }

  // Log sizes at which the loss may have a kink, as Model.kinks.
  function kinks(v) {
    if (!held.repeats || v[U] === Infinity) return [];
    const repeats = [0, ...held.ends.slice(0, 1).map((name) => v[at(name)])];
    const byTokens = repeats.map((times) => sizeOf(code.flops_per_token, v, v[C] / v[U] / (1 + times)) + 1e-13);
    if (v.anchor === "") return byTokens;
    const excesses = [0, ...held.ends.slice(1).map((name) => v[at(name)])], counted = v.counted;
    const bySize = excesses.map((times) => sizeOf(counted, v, v[T] * (1 + times)));
    if (v.anchor === "own") bySize[0] = v.taught;
    const between = byTokens.slice(1).flatMap((a, i) => [1, 2, 3, 4, 5, 6, 7].map((k) => a + (k / 8) * (bySize[i + 1] - a)));
    return [...byTokens, ...bySize, ...between];
  }

  const value = (v, x) => { const y = loss(v, x); return Number.isNaN(y) ? Infinity : y; };

  // The size with the lowest loss: { log_size, loss, status }. Where the slope turns, at kinks, and on the grid itself.
  function best(v) {
    const bends = kinks(v).filter((x) => x > first && x < last).sort((a, b) => a - b);
    const dips = [];
    let low = { log_size: grid[0], loss: Infinity };
    const take = (x, y) => { if (y < low.loss && !(low.loss - y <= EQUAL * Math.abs(y))) low = { log_size: x, loss: y }; };
    const within = (a, b, sa, sb) => {
      if (!(sa < 0 && sb > 0)) return;
      const x = moesim.root((x) => slope(v, x), a, b, sa, sb), y = value(v, x);
      dips.push([x, y]);
    };
    let k = 0, a = grid[0], sa = slope(v, a);
    take(a, value(v, a));
    for (let i = 1; i < n; i++) {
      for (; k < bends.length && bends[k] < grid[i]; k++) {
        const x = bends[k], left = slope(v, x - BESIDE), right = slope(v, x + BESIDE);
        if (x - BESIDE > a) within(a, x - BESIDE, sa, left);
        within(x - BESIDE, x, left, slope(v, x - 1e-12));
        if (!(left > 0) || !(right < 0)) dips.push([x, value(v, x)]);
        within(x, x + BESIDE, slope(v, x + 1e-12), right);
        a = x + BESIDE; sa = right;
      }
      const b = grid[i], sb = slope(v, b);
      within(a, b, sa, sb);
      take(b, value(v, b));
      a = b; sa = sb;
    }
    const [x, y] = dips.reduce((a, b) => (b[1] < a[1] ? b : a), [NaN, Infinity]);
    const near = Math.abs(x - low.log_size) <= step && y <= low.loss * (1 + EQUAL);  // of a plateau the first
    if (near) low = { log_size: x, loss: y };
    else take(x, y);
    return { ...low, status: status(v, low, dips) };
  }

  function status(v, low, dips) {
    if (!Number.isFinite(low.loss)) return "failed";
    if (low.log_size === grid[0]) return "at lower bound";
    if (low.log_size === last) return "at upper bound";
    if (dips.some(([x, y]) => Math.abs(x - low.log_size) > APART / held.power && y - low.loss < NEAR && dip(v, x, y))) return "two dips";
    const here = on(code.active_params, v, low.log_size), grows = Math.log(on(code.active_params, v, low.log_size + 1e-3) / here) / 1e-3;
    const rise = Math.min(...[-1, 1].map((by) => loss(v, low.log_size + (by * STEP) / grows) - low.loss));
    return rise < LEVEL ? "flat" : "inside";
  }

  const dip = (v, x, y) => [-1e-3, 1e-3].every((by) => value(v, x + by) > y * (1 + EQUAL));

  // Everything of a run at a log size.
  function run(v, x) {
    v[X] = x;
    const out = { log_size: x, compute: v[C], sparsity: v[S], unique_tokens: v[U], loss: loss(v, x) };
    for (const name of quantities) out[name] = code[name](v);
    return { ...out, epochs: out.tokens / v[U] };
  }

  // What of a run (at a size of the cell, see `run`) lies outside the data of the law, of the repetition, or of the
  // run by which excess is judged, as planning.describe; the names of the quantities.
  const ranges = Object.fromEntries(["law", "repetition"].map((part) =>
    [part, Object.entries(held.known[part].data_range).map(([name, [low, high]]) => [name, low * (1 - 1e-9), high * (1 + 1e-9)])]));
  const unknown = Object.keys(held.known.law.data_range).length ? [] : ["what_is_known"];
  const epochsKnown = ["law", "repetition"].some((part) => "epochs" in held.known[part].data_range);
  const beyond = (part, at) => ranges[part].filter(([name, low, high]) => at[name] < low || at[name] > high).map(([name]) => name);

  function outside(v, at) {
    const repeats = at.epochs > 1 + 1e-9, excess = v.anchor !== "" && on(v.counted, v, at.log_size) > v[T];
    return [...unknown, ...beyond("law", at), ...(repeats && !epochsKnown ? ["epochs"] : []),
      ...(repeats || excess ? beyond("repetition", at) : []), ...(excess ? anchorOutside(v) : [])];
  }

  function anchorOutside(v) {
    if (v.outside || typeof v.anchor === "number" || !Number.isFinite(v.taught)) return v.outside || [];
    const w = moved(v);
    if (v.anchor === "dense") w[S] = 0;
    const once = run(w, v.taught), compute = v[U] * once.flops_per_token;
    v.outside = beyond("law", { ...once, tokens: v[U], compute, epochs: 1 });
    return v.outside;
  }

  // The cell at another sparsity, by t = -log(1 - sparsity).
  function sparser(v, t, near = null) {
    const w = moved(v);
    w[S] = -Math.expm1(-t);
    w.taught = teach(w, near);
    return w;
  }

  // dL/dt of the best size's loss; the size itself adds nothing, since dL/dsize = 0 there.
  function fall(v, t, x, near) {
    const f = (k) => loss(sparser(v, t + k * WIDTH, near), x);
    return (45 * (f(1) - f(-1)) - 9 * (f(2) - f(-2)) + f(3) - f(-3)) / (60 * WIDTH);
  }

  // The sparsity with the lowest loss at its best size, within bounds: { sparsity, log_size, loss, status, cell }.
  function bestSparsity(v, bounds) {
    const [a, b] = bounds.map((s) => -Math.log1p(-s)), width = (b - a) / (SPARSITIES - 1);
    const ladder = Array.from({ length: SPARSITIES }, (_, i) => rung(v, i === SPARSITIES - 1 ? b : a + i * width));
    const least = Math.min(...ladder.map((one) => one.loss));
    let low = ladder.find((one) => one.loss <= least * (1 + 1e-13)) || ladder[0];
    const end = low, take = (one) => { if (one.loss < low.loss) low = one; };
    let solved = false;
    ladder.slice(1).forEach((right, i) => {
      const left = ladder[i];
      if (!(left.fall < 0 && right.fall > 0) || reach(left, right) > least) return;
      const t = moesim.root((t) => rung(v, t, t - left.t < right.t - t ? left : right).fall, left.t, right.t, left.fall, right.fall, 1e-10);
      if (Number.isNaN(t)) return;
      const one = rung(v, t), beside = Math.min(...[-1e-3, 1e-3].map((by) => rung(v, t + by, null, false).loss));
      if (one.loss < low.loss) { low = one; solved = one.loss <= beside * (1 + 1e-15); }
    });
    if (!solved) for (const i of dipsOf(ladder)) {
      const [t] = moesim.lowest((t) => rung(v, t, null, false).loss, ladder[i - 1].t, ladder[i].t, ladder[i + 1].t);
      take(rung(v, t));
    }
    const ends = { [ladder[0].t]: "at lower bound", [ladder[SPARSITIES - 1].t]: "at upper bound" };
    const word = !Number.isFinite(low.loss) ? "failed" : low === end && low.t in ends ? ends[low.t] : "inside";
    return { sparsity: -Math.expm1(-low.t), log_size: low.log_size, loss: low.loss, status: word, cell: low.cell };
  }

  // The best size near another one, where the slope turns there; else the best of all.
  function bestNear(v, x) {
    const [a, b] = [x - 0.2, x + 0.2], sa = slope(v, a), sb = slope(v, b);
    if (!(sa < 0 && sb > 0)) return best(v);
    const size = moesim.root((x) => slope(v, x), a, b, sa, sb);
    return { log_size: size, loss: value(v, size) };
  }

  // The best size and its loss at t, sought near those of a rung beside it, if there is one.
  function rung(v, t, beside = null, falls = true) {
    const w = sparser(v, t, beside ? beside.cell.taught : null), found = beside ? bestNear(w, beside.log_size) : best(w);
    return { t, ...found, cell: w, fall: falls ? fall(v, t, found.log_size, w.taught) : 0 };
  }

  // What the loss between two rungs cannot fall below if it is convex.
  function reach(left, right) {
    const along = (right.loss - left.loss - right.fall * (right.t - left.t)) / (left.fall - right.fall);
    return left.loss + left.fall * along;
  }

  function dipsOf(ladder) {
    const inner = (i) => ladder[i].loss < ladder[i - 1].loss && ladder[i].loss <= ladder[i + 1].loss;
    const places = Array.from({ length: SPARSITIES - 2 }, (_, i) => i + 1).filter(inner);
    return places.sort((i, j) => ladder[i].loss - ladder[j].loss).slice(0, 2);
  }

  return { grid, cell, loss, slope, best, bestSparsity, run, outside };
};
