// What every view can be asked: which models, tasks, methods and seeds, and which quantity of which lens.

const FILTERS = ["model", "task", "method", "seed"];
const SETTING = "setting:";  // before the name of a setting, wherever model, task or method may stand as well

// Settings in which trainings differ, each with this in front.
const differing = distinct(study.places.flatMap(place => Object.keys(place.settings))).filter(name => !FILTERS.includes(name)
  && distinct(study.places.filter(place => name in place.settings).map(place => place.settings[name])).length > 1)
  .map(name => SETTING + name);

// Model, task, method, seed, cell, name or a setting of a place.
function valueOf(place, name) {
  return String((name.startsWith(SETTING) ? place.settings[name.slice(SETTING.length)] : place[name]) ?? "–");
}

// Choices of what trainings can be told apart by, after those of a view: every setting in which they differ.
function orSetting(options) {
  return [...options, ...differing.map(name => [name, `each ${name.slice(SETTING.length)}`])];
}

// The places that the address leaves in. An empty filter leaves all.
function chosen(params, kinds = ["fine-tuning", "masked", "shared"]) {
  return study.places.filter(place => kinds.includes(place.kind) && [...FILTERS, ...differing].every(name => {
    const wanted = params.getAll(name);
    return !wanted.length || wanted.includes(valueOf(place, name));
  }));
}

function filters(params) {
  const asked = differing.filter(name => params.get("filter") === name || params.has(name));
  const boxes = [...FILTERS, ...asked].map(name => {
    const values = distinct(study.places.map(place => valueOf(place, name))).filter(value => value !== "" && value !== "-1");
    if (values.length < 2) return null;
    const wanted = params.getAll(name);
    const summary = `${name.replace(SETTING, "")}: ${wanted.length ? wanted.join(", ") : "all"}`;
    const fields = values.map(value => switchOf(value, wanted.includes(value), on => change({
      [name]: on ? [...wanted, value] : wanted.filter(other => other !== value)})));
    const all = el("button", {type: "button", click: () => change({[name]: ""})}, "all");
    return el("details", {class: "filter", "data-name": name}, el("summary", {}, summary), el("div", {}, ...fields, wanted.length ? all : null));
  });
  const more = differing.filter(name => !asked.includes(name)).map(name => [name, name.slice(SETTING.length)]);
  return el("div", {class: "bar", role: "group", "aria-label": "filter"}, ...boxes,
    more.length ? choice("filter by", [["", "a setting"], ...more], "", value => change({filter: value})) : null);
}

// --- quantities: LENS|quantity|layer|split|label|keys; "*" for a layer, split, label or keys: each of them -----------
// In a part, % and | are written as %25 and %7C.

const FACETS = ["layer", "split", "label", "keys"];

function parseQuantity(text) {
  const [lens, quantity, layer, split, label, keys] = text.split("|").map(
    part => part.replaceAll("%7C", "|").replaceAll("%25", "%"));
  return {lens, quantity, layer, split, label, keys};
}

function written(asked) {
  return [asked.lens, asked.quantity, ...FACETS.map(name => asked[name])].map(
    part => part.replaceAll("%", "%25").replaceAll("|", "%7C")).join("|");
}

function title(asked) {
  const facets = FACETS.filter(name => !["", "*", "-1", undefined].includes(asked[name]));
  return `${asked.lens} ${asked.quantity}` + facets.map(name => `, ${facetText(name, asked[name])}`).join("");
}

function facetText(name, value) {
  return name !== "layer" ? value : Number(value) < 0 ? "no layer" : `layer ${value}`;
}

// Values of every facet among the rows of a quantity over steps: {layer: [...], split: [...], …}, as texts.
function facets(table, quantity) {
  return remembered(table, `facets ${quantity}`, () => facetsAmong(table, quantity));
}

// What is found by going through all rows of a table, which need not be done twice.
const known = new WeakMap();
function remembered(table, name, find) {
  if (!known.has(table)) known.set(table, new Map());
  if (!known.get(table).has(name)) known.get(table).set(name, find());
  return known.get(table).get(name);
}

function facetsAmong(table, quantity) {
  const {columns, texts} = table;
  const code = texts.quantity.indexOf(quantity);
  const seen = Object.fromEntries(FACETS.map(name => [name, new Set()]));
  for (let i = 0; i < table.rows; i++) {
    if (columns.quantity[i] !== code || columns.step[i] < 0) continue;
    for (const name of FACETS) seen[name].add(columns[name][i]);
  }
  const sorted = name => [...seen[name]].sort((a, b) => a - b).map(value => name === "layer" ? String(value) : texts[name][value]);
  return Object.fromEntries(FACETS.map(name => [name, sorted(name)]));
}

// Quantities of a lens that have rows over steps; with `layers`, those with several layers only.
function quantities(table, layers = false) {
  return remembered(table, `quantities ${layers}`, () => quantitiesAmong(table, layers));
}

function quantitiesAmong(table, layers) {
  const {columns, texts} = table;
  const first = new Map();
  for (let i = 0; i < table.rows; i++) {
    if (columns.step[i] < 0) continue;
    const known = first.get(columns.quantity[i]);
    if (known === undefined) first.set(columns.quantity[i], columns.layer[i]);
    else if (known !== "several" && known !== columns.layer[i]) first.set(columns.quantity[i], "several");
  }
  return [...first].filter(([, layer]) => !layers || layer === "several").map(([code]) => texts.quantity[code]).sort();
}

// What is shown of a quantity if nothing else is asked: the last layer, validation, all labels, the first keys.
function usual(table, lens, quantity) {
  const options = facets(table, quantity);
  const layers = options.layer;
  return {lens, quantity, layer: layers[layers.length - 1] ?? "-1",
    split: options.split.includes("validation") ? "validation" : options.split[0] ?? "",
    label: options.label.includes("") ? "" : options.label[0] ?? "",
    keys: options.keys.includes("") ? "" : options.keys[0] ?? ""};
}

// What an address asks for, with facets that the quantity has; null where the study has no such quantity.
async function valid(asked) {
  if (!study.lenses.some(lens => lens.name === asked.lens)) return null;
  const table = await part(`table/${asked.lens}`);
  if (!quantities(table).includes(asked.quantity)) return null;
  const [options, other] = [facets(table, asked.quantity), usual(table, asked.lens, asked.quantity)];
  const kept = FACETS.filter(name => asked[name] === "*" || options[name].includes(asked[name]));
  return {...other, ...Object.fromEntries(kept.map(name => [name, asked[name]]))};
}

// Choices of lens, quantity and facets. changed(asked); layers: quantities with several layers only.
async function chooser(asked, changed, {layers = false, fixed = []} = {}) {
  const table = await part(`table/${asked.lens}`);
  const names = quantities(table, layers);
  const options = facets(table, asked.quantity);
  const lenses = study.lenses.filter(lens => !layers || lens.layers).map(lens => lens.name);
  const other = async lens => {
    const found = await part(`table/${lens}`);
    const firsts = quantities(found, layers);
    const headline = study.headlines.find(one => one.lens === lens);
    const preferred = firsts.find(name => headline && headline.name.includes(`/${name.split("/")[0]}`)) ?? firsts[0];
    changed(usual(found, lens, preferred));
  };
  const several = FACETS.filter(name => options[name].length > 1 && !fixed.includes(name)).map(name => choice(
    name, [...options[name].map(value => [value, facetText(name, value)]), ["*", name === "layer" ? "each layer" : "each of them"]], asked[name], value => changed({...asked, [name]: value})));
  return el("div", {class: "bar"}, choice("lens", lenses, asked.lens, other),
    choice("quantity", names, asked.quantity, value => changed(usual(table, asked.lens, value))), ...several);
}

// The rows of a quantity at some places: [{place, row, step, layer, …}] in the table's order.
function rowsOf(table, asked, places) {
  const {columns, texts, slices} = table;
  const wanted = new Set(places.map(place => study.places.indexOf(place)));
  const code = texts.quantity.indexOf(asked.quantity);
  const tests = FACETS.filter(name => asked[name] !== "*").map(name => [
    columns[name], name === "layer" ? Number(asked.layer) : texts[name].indexOf(asked[name])]);
  const found = [];
  for (const [place, from, first, count] of slices) {
    if (!wanted.has(place)) continue;
    for (let i = from; i < from + count; i++) {
      if (columns.quantity[i] !== code || columns.step[i] < 0 || tests.some(([column, value]) => column[i] !== value)) continue;
      found.push({place: study.places[place].name, lens: asked.lens, quantity: asked.quantity, row: first + i - from,
        step: columns.step[i], layer: columns.layer[i], split: texts.split[columns.split[i]],
        label: texts.label[columns.label[i]], keys: texts.keys[columns.keys[i]], value: columns.value[i],
        low: columns.low[i], high: columns.high[i], n: columns.n[i],
        examples: columns.examples[i], tokens: columns.tokens[i], epoch: columns.epoch[i]});
    }
  }
  return found;
}

// One slider over checkpoints; the address keeps where it stands. follow(step): what goes along with it.
function checkpoints(steps, params, follow) {
  const at = params.has("at") ? nearest(steps, Number(params.get("at"))) : steps.length - 1;
  const say = el("output", {});
  const move = index => {
    say.textContent = `step ${steps[index].toLocaleString("en")}`;
    input.setAttribute("aria-valuetext", say.textContent);
    follow(steps[index]);
  };
  const input = el("input", {type: "range", min: 0, max: steps.length - 1, step: 1, value: at, "aria-label": "checkpoint",
    input: () => move(Number(input.value)), change: () => quietly({at: steps[Number(input.value)]})});
  move(at);
  return el("label", {class: "slider"}, el("span", {}, "checkpoint"), input, say);
}

// Index of the step that is nearest.
function nearest(steps, step) {
  return steps.reduce((best, one, i) => Math.abs(one - step) < Math.abs(steps[best] - step) ? i : best, 0);
}
