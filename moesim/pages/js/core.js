"use strict";
// The page: elements whose texts are texts, numbers as people read them, and the sections of every result.
const moesim = { kinds: {}, laws: [] };

// An element with attributes (`on`: its listeners) and children, which are elements or texts.
moesim.make = function (tag, attributes = {}, ...children) {
  return moesim.fill(document.createElement(tag), attributes, children);
};

moesim.shape = function (tag, attributes = {}, ...children) {
  return moesim.fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
};

moesim.fill = function (element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
};

const PREFIXES = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]];

// A number as text: "count" in three digits with K, M, B or T; "plain" in `digits` (5), 1e+20 as 1e20.
moesim.say = function (value, how = "plain", digits = 5) {
  if (typeof value === "string") return value;
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : how === "count" ? "unlimited" : "∞";
  const size = Math.abs(value);
  if (how === "share") return moesim.trimmed(100 * value, 3) + " %";
  if (how === "count" && size >= 999.5 && size < 0.9995e15) {
    const [scale, letter] = PREFIXES.find(([scale]) => size >= 0.9995 * scale);
    return moesim.trimmed(value / scale, 3) + letter;
  }
  return moesim.trimmed(value, how === "count" ? 3 : digits);
};

moesim.trimmed = function (value, digits) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e7) return String(Number(value.toPrecision(digits)));
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  return Number(mantissa) + "e" + Number(exponent);
};

// How numbers of a variable are said: parameters and tokens as counts, all else plain.
moesim.manner = (name) => (/(params|tokens)$/.test(name) ? "count" : "plain");

moesim.range = function (values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value === null || !Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
};

// Whether values are best shown on a logarithmic axis.
moesim.wide = function (values) {
  const [low, high] = moesim.range(values);
  return low > 0 && high / low > 50;
};

moesim.download = function (name, text, type = "text/csv") {
  const link = moesim.make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

// Rows as CSV; a text that a spreadsheet would run as a formula starts with an apostrophe.
moesim.csv = function (rows) {
  const cell = (value) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "";
    if (typeof value === "number") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? "'" + value : String(value);
    return /[",\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
};

moesim.button = (text, listener, attributes = {}) =>
  moesim.make("button", { type: "button", on: { click: listener }, ...attributes }, text);

// A button that copies what `text()` gives and says that it did.
moesim.copier = function (label, text) {
  const button = moesim.button(label, () => {
    const done = () => { button.textContent = "copied"; setTimeout(() => { button.textContent = label; }, 1200); };
    const area = moesim.make("textarea", { class: "away", "aria-hidden": "true" });
    area.value = text();
    document.body.append(area);
    area.select();
    document.execCommand("copy");  // navigator.clipboard is for https alone
    area.remove();
    done();
  });
  return button;
};

moesim.select = function (label, options, chosen, listener) {
  const select = moesim.make("select", { on: { change: () => listener(select.value) } },
    options.map((option) => {
      const [value, text] = Array.isArray(option) ? option : [option, option];
      return moesim.make("option", { value, selected: value === chosen }, text);
    }));
  return moesim.make("label", { class: "choice" }, moesim.make("span", {}, label), select);
};

moesim.check = function (label, checked, listener) {
  const box = moesim.make("input", { type: "checkbox", checked, on: { change: () => listener(box.checked) } });
  return moesim.make("label", { class: "check" }, box, label);
};

// A slider through places 0 to n - 1, with the text of each.
moesim.slider = function (label, n, at, text, listener) {
  const said = moesim.make("output", {}, text(at));
  const input = moesim.make("input", {
    type: "range", min: 0, max: n - 1, step: 1, value: at, "aria-valuetext": text(at),
    on: { input: () => {
      said.textContent = text(+input.value);
      input.setAttribute("aria-valuetext", text(+input.value));
      listener(+input.value);
    } },
  });
  return moesim.make("label", { class: "slider" }, moesim.make("span", {}, label), input, said);
};

// Rows as a table, of which the first is its head; of very many only the first, and it says so.
moesim.table = function (all, { head = true, caption: text = "" } = {}) {
  const most = 1000, rows = all.slice(0, most + 1), left = all.length - rows.length;
  const caption = [text, left > 0 ? `the first ${most} of ${most + left} rows; the CSV has them all` : ""].filter(Boolean).join("; ");
  const cell = (tag, value) => {
    const text = moesim.say(value);
    return moesim.make(tag, { class: typeof value === "number" ? "number short" : text.length < 24 ? "short" : null }, text);
  };
  const [first, ...rest] = head ? rows : [null, ...rows];
  return moesim.make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption || "table" },
    moesim.make("table", {},
      caption ? moesim.make("caption", {}, caption) : null,
      first ? moesim.make("thead", {}, moesim.make("tr", {}, first.map((value) => cell("th", value)))) : null,
      moesim.make("tbody", {}, rest.map((row) => moesim.make("tr", {}, row.map((value) => cell("td", value)))))));
};

moesim.kinds.text = function (content, root) {
  for (const text of content.paragraphs) root.append(moesim.make("p", {}, text));
  if (content.lines) root.append(moesim.make("pre", { tabindex: 0 }, content.lines));
};

moesim.kinds.table = function (content, root) {
  if (content.note) root.append(moesim.make("p", { class: "note" }, content.note));
  root.append(moesim.table(content.rows, { caption: content.caption || "" }));
};

moesim.kinds.about = function (content, root) {
  root.append(moesim.table(content.rows, { head: false, caption: "" }));
  if (!content.config) return;
  root.append(moesim.make("details", {}, moesim.make("summary", {}, "Its whole config"),
    moesim.make("pre", { tabindex: 0 }, content.config)));
};

moesim.theme = function () {
  const dark = () => document.documentElement.dataset.theme === "dark" ||
    (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  const button = moesim.button(dark() ? "light" : "dark", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    button.textContent = dark() ? "light" : "dark";
  }, { class: "theme", "aria-label": "switch between light and dark" });
  return button;
};

moesim.start = function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.getElementById("page");
  const several = data.results.length > 1;
  root.append(moesim.make("header", {}, moesim.make("h1", {}, data.title), moesim.theme()));
  if (several) root.append(moesim.make("nav", { "aria-label": "results" }, moesim.make("ol", {}, data.results.map((one, i) =>
    moesim.make("li", {}, moesim.make("a", { href: `#result${i}` }, one.file || one.title))))));
  data.results.forEach((one, i) => root.append(moesim.result(one, i, several)));
  root.append(moesim.make("footer", {}, `moesim ${data.version}; this file asks nothing of any network`));
};

moesim.result = function (one, i, several) {
  const told = [one.file, one.sizes].filter(Boolean).join(": ");
  const heading = several ? [moesim.make("h2", {}, one.title)] : [];
  const line = one.command ? moesim.make("div", { class: "command" }, moesim.make("code", {}, one.command),
    moesim.copier("copy", () => one.command)) : null;
  const result = moesim.make("article", { id: `result${i}` }, heading, moesim.make("p", { class: "note" }, told), line);
  for (const section of one.sections) {
    const title = moesim.make(several ? "h3" : "h2", {}, section.title);
    const root = moesim.make("section", { class: section.kind, "aria-label": section.title }, title);
    result.append(root);
    moesim.kinds[section.kind](section.content, root, one, moesim.laws[section.law]);
  }
  return result;
};
