// The study, its table, the address of a view, and the helpers that all views use.

const study = JSON.parse(document.getElementById("study").textContent);
const placeOf = new Map(study.places.map(place => [place.name, place]));
const ARRAYS = {float32: Float32Array, int32: Int32Array, uint16: Uint16Array};

// Half widths of 95 % intervals in standard errors: Student's t for 1 to 30 degrees of freedom, then the normal's.
const T95 = [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.306, 2.2622, 2.2281, 2.201, 2.1788, 2.1604,
  2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.093, 2.086, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518,
  2.0484, 2.0452, 2.0423];
const COLOURS = ["#3b6fd4", "#d9622b", "#2a9a63", "#b0479b", "#8a7a12", "#1d93a8", "#c23b4b", "#6b5fc7", "#6d8b1e", "#8c5a3c"];

// --- packed parts: inside the page, or in files beside it that are read when they are needed --------------------

const waiting = {};
window.finetrace = {part: (name, text) => waiting[name](text)};
const read = new Map();

function part(name) {
  if (!read.has(name)) read.set(name, textOf(name).then(unpack));
  return read.get(name);
}

function textOf(name) {
  const inside = document.getElementById(`part:${name}`);
  if (inside) return Promise.resolve(inside.textContent);
  return new Promise((resolve, reject) => {
    waiting[name] = resolve;
    const script = el("script", {src: study.beside[name]});
    script.onerror = () => reject(new Error(`${study.beside[name]} is not beside this page: copy the whole folder atlas`));
    document.head.append(script);
  });
}

async function unpack(text) {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(stream).arrayBuffer();
  const size = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const columns = {};
  for (const {name, kind, offset} of head.columns) {
    columns[name] = new ARRAYS[kind](buffer, 4 + size + offset, head.rows);
  }
  return {...head, columns};
}

// --- the address: #view?name=value&…, which can be shared ---------------------------------------------------------

function asked() {
  const [view, query = ""] = location.hash.slice(1).split("?");
  return {view: VIEWS[view] ? view : "overview", params: new URLSearchParams(query)};
}

function address(view, params) {
  const query = params.toString();
  return `#${view}${query ? `?${query}` : ""}`;
}

// Change what is asked of the shown view. changes: name -> value, list of values, or "" for nothing.
function change(changes, view = asked().view) {
  const {params} = asked();
  for (const [name, value] of Object.entries(changes)) {
    params.delete(name);
    for (const one of [value].flat()) if (one !== "") params.append(name, one);
  }
  location.hash = address(view, params);
}

// --- elements -----------------------------------------------------------------------------------------------------

// An element with attributes (functions are listeners) and children; texts never become HTML.
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter(child => child !== null && child !== undefined).map(
    child => child instanceof Node ? child : String(child)));
  return made;
}

// A labelled choice. options: values, or [value, text].
function choice(label, options, value, changed) {
  const select = el("select", {change: () => changed(select.value)}, options.map(option => {
    const [own, text] = Array.isArray(option) ? option : [option, option];
    return el("option", {value: own, selected: String(own) === String(value)}, text === "" ? "(none)" : text);
  }));
  return el("label", {class: "choice"}, el("span", {}, label), select);
}

function switchOf(label, on, changed) {
  const box = el("input", {type: "checkbox", checked: on, change: () => changed(box.checked)});
  return el("label", {class: "switch"}, box, el("span", {}, label));
}

// A table whose headings sort it. header: [text, explanation]; rows: lists of cells, each a text, a number, or
// {text, value, node}; a row may have a `link` for its first cell.
function sortable(header, rows, caption) {
  const body = el("tbody", {}, rows.map(row => el("tr", {}, row.map((cell, i) => {
    const {text, value, node} = typeof cell === "object" && cell !== null ? cell : {text: cell, value: cell};
    const made = el(i ? "td" : "th", i ? {} : {scope: "row"}, node || (text ?? "–"));
    sortedBy(made, value);
    if (typeof value === "number") made.classList.add("number");
    if (String(text ?? "").length > 40) made.classList.add("long");
    return made;
  }))));
  const sort = (heading, column) => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const order = (one, other) => {
      const [a, b] = [one, other].map(row => row.cells[column].dataset.value);
      if (a === "" || b === "") return (a === "") - (b === "");  // what is absent stays at the end
      const difference = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
      return down ? -difference : difference;
    };
    body.append(...[...body.rows].sort(order));
  };
  const head = el("thead", {}, el("tr", {}, header.map(([text, explanation], column) => {
    const heading = el("th", {scope: "col"});
    heading.append(el("button", {type: "button", title: explanation, click: () => sort(heading, column)}, text));
    return heading;
  })));
  return el("div", {}, el("p", {class: "note"}, caption), el("div", {class: "wide", tabindex: 0, role: "region", "aria-label": caption},
    el("table", {}, head, body)));
}

// What a cell is sorted by; what is absent or no number stays at the end.
function sortedBy(cell, value) {
  cell.dataset.value = Number.isNaN(value) ? "" : value ?? "";
}

function note(...texts) {
  return el("p", {class: "note"}, ...texts);
}

// Save a text as a file.
function save(name, text, type = "text/csv") {
  const link = el("a", {href: URL.createObjectURL(new Blob([text], {type})), download: name});
  link.click();
  URL.revokeObjectURL(link.href);
}

function csv(rows) {
  const cell = value => /[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  return rows.map(row => row.map(value => cell(String(value ?? ""))).join(",")).join("\n") + "\n";
}

// --- numbers ------------------------------------------------------------------------------------------------------

function shown(value, digits) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (digits) return value.toFixed(digits);
  if (digits === 0 || Number.isInteger(value)) return value.toLocaleString("en", {maximumFractionDigits: 0});
  return String(Number(value.toPrecision(5)));
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

// Standard deviation of a sample; NaN for one.
function spread(values) {
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}

// Half the width of the 95 % interval of a mean over seeds; NaN for one.
function halfWidth(values) {
  return (T95[values.length - 2] ?? 1.96) * spread(values) / Math.sqrt(values.length);
}

function distinct(values) {
  return [...new Set(values)];
}

// --- plots --------------------------------------------------------------------------------------------------------

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// A figure with a caption that says in words what it shows. clicked(point): what a click on a point does.
function plot(parent, traces, layout, caption, clicked) {
  const box = el("div", {class: "plot"});
  box.style.height = `${layout.height ?? 420}px`;
  parent.append(el("figure", {}, box, el("figcaption", {}, caption)));
  const axis = {gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line"), automargin: true};
  const whole = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: colour("text"), size: 12},
    margin: {l: 60, r: 20, t: layout.title ? 40 : 16, b: 45}, hovermode: "closest",
    legend: {orientation: "h", y: -0.22, yanchor: "top"},
    hoverlabel: {bgcolor: colour("ground"), bordercolor: colour("line"), font: {color: colour("text")}}, ...layout};
  for (const name of Object.keys(whole)) if (/^[xy]axis\d*$/.test(name)) whole[name] = {...axis, ...whole[name]};
  Plotly.newPlot(box, traces, whole, {displaylogo: false, plotlyServerURL: "",  // nothing is sent anywhere
    modeBarButtonsToRemove: ["lasso2d", "select2d", "sendChartToCloud"],
    toImageButtonOptions: {format: "svg", filename: caption.slice(0, 60).replaceAll(/[^\w-]+/g, "-")}});
  new ResizeObserver(() => box.isConnected && Plotly.Plots.resize(box)).observe(box);
  if (clicked) box.on("plotly_click", event => clicked(event.points[0]));
  settled(box, layout);
  return box;
}

// Keep the legend below the axis's title, and the drawing as high as asked however many lines the legend has: Plotly
// measures its place in shares of what is drawn, which is little on a narrow page and in a chart of few rows.
function settled(box, layout) {
  const asked = layout.height ?? 420, below = /<br>/.test(layout.xaxis?.title?.text ?? "") ? 84 : 68;
  let width = 0, rounds = 0;
  const settle = () => {
    if (box.clientWidth !== width) [width, rounds] = [box.clientWidth, 0];
    const legend = box.querySelector("g.legend .bg");
    if (!legend || !box.querySelector(".nsewdrag") || rounds > 5) return;
    const high = Math.round(asked + Math.max(0, Number(legend.getAttribute("height")) - 30));
    const y = -below / drawnArea(box)[3];
    if (Math.abs(high - box.clientHeight) > 2) {
      rounds++;
      box.style.height = `${high}px`;  // drawn again when its size is seen
    } else if (Math.abs(y - box.layout.legend.y) * drawnArea(box)[3] > 3) {
      rounds++;
      Plotly.relayout(box, {"legend.y": Math.max(-2, y)});
    }
  };
  box.on("plotly_afterplot", settle);
  settle();
}

// Where a plot's lines and cells are drawn in its box: left, top, width and height in pixels.
function drawnArea(box) {
  const area = box.querySelector(".nsewdrag");
  return ["x", "y", "width", "height"].map(name => Number(area.getAttribute(name)));
}

// --- where a number comes from ------------------------------------------------------------------------------------

// Show place, stage, row, figure and run of a number. found: {place, lens, quantity, value, row, …} as far as known;
// row: one, or those of which it is the mean.
function origin(found) {
  const place = placeOf.get(found.place) ?? {name: found.place};
  const lines = [["place", place.page ? el("a", {href: `${place.page}#${found.lens}`}, place.name) : place.name]];
  for (const name of ["lens", "quantity", "step", "layer", "split", "label", "keys", "value", "low", "high", "n"]) {
    const value = found[name];
    if (value === undefined || value === "" || value === -1 || Number.isNaN(value)) continue;
    lines.push([name, typeof value === "number" ? String(Number(value.toPrecision(7))) : value]);
  }
  if (place.key) {
    const stage = found.lens === "trajectory" ? place.stage : found.lens;
    lines.push(["stage", el("code", {}, `${stage}@${place.key}`)]);
    const run = found.lens === "trajectory" ? place.key : `${found.lens}@${place.key}`;
    lines.push(["in MLflow", el("code", {}, `tags.\`finetrace.name\` = '${run}'`)]);
  }
  const rows = [found.row ?? []].flat();
  if (rows.length) {
    lines.push([rows.length > 1 ? "mean of rows" : "row",
      el("code", {}, `pd.read_parquet("atlas/table.parquet").iloc[${rows.length > 1 ? `[${rows.join(", ")}]` : rows[0]}]`)]);
  }
  const box = document.getElementById("origin");
  box.replaceChildren(el("form", {method: "dialog"}, el("h2", {}, "Where this number comes from"),
    el("dl", {}, lines.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])), el("button", {}, "Close")));
  if (!box.open) box.showModal();
}
