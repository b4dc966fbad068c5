// Layers: layer x step of a quantity for one training, for two side by side with their difference; before and after.

async function layers(main, params) {
  const lens = study.lenses.find(one => one.layers && one.name === "geometry") ?? study.lenses.find(one => one.layers);
  if (!lens) return main.append(note("No lens that tells layers apart has looked yet (geometry, probes, hulls, similarity, …)."));
  let asked = params.get("q") ? await valid(parseQuantity(params.get("q"))) : null;
  if (!asked || !quantities(await part(`table/${asked.lens}`), true).includes(asked.quantity)) {
    const table = await part(`table/${lens.name}`);
    const names = quantities(table, true);
    asked = usual(table, lens.name, names.includes("effective_rank") ? "effective_rank" : names[0]);
  }
  asked = {...asked, layer: "*"};
  const table = await part(`table/${asked.lens}`);
  const there = placesOf(table, asked.quantity);
  const names = chosen(params).map(place => place.name).filter(name => there.has(name));
  main.append(filters(params), await chooser(asked, changed => change({q: written({...changed, layer: "*"})}),
    {layers: true, fixed: ["layer"]}));
  if (!names.length) return main.append(note("No training that the filter leaves has this quantity."));
  const a = names.includes(params.get("a")) ? params.get("a") : names[0];
  const b = names.includes(params.get("b")) ? params.get("b") : "";
  main.append(el("div", {class: "bar"}, choice("A", names, a, value => change({a: value})),
    choice("B", [["", "(none)"], ...names], b, value => change({b: value}))));
  const row = el("div", {class: "row"});
  main.append(row);
  const [one, other] = [a, b].map(name => name ? gridOf(rowsOf(table, asked, [placeOf.get(name)])) : undefined);
  const range = rangeOf([one, other].filter(Boolean).flatMap(grid => grid.cells.flat().map(cell => cell?.value)));
  heat(row, one, `A: ${a}`, asked, range);
  if (other) {
    heat(row, other, `B: ${b}`, asked, range);
    heat(row, difference(one, other), "B − A", asked, null);
  }
  profiles(main, params, asked, [["A", a, one], ["B", b, other]].filter(([, , grid]) => grid));
}

// Names of the places with rows of a quantity over steps.
function placesOf(table, quantity) {
  const {columns, texts, slices} = table;
  const code = texts.quantity.indexOf(quantity);
  const has = (from, count) => range(count).some(i => columns.quantity[from + i] === code && columns.step[from + i] >= 0);
  return new Set(slices.filter(([, from, , count]) => has(from, count)).map(([place]) => study.places[place].name));
}

// {layers, steps, cells: [layer][step] -> row or null} of the rows of one training.
function gridOf(rows) {
  const layers = distinct(rows.map(row => row.layer)).sort((x, y) => x - y);
  const steps = distinct(rows.map(row => row.step)).sort((x, y) => x - y);
  const cells = layers.map(() => steps.map(() => null));
  for (const row of rows) cells[layers.indexOf(row.layer)][steps.indexOf(row.step)] = row;
  return {layers, steps, cells};
}

function difference(one, other) {
  const steps = one.steps.filter(step => other.steps.includes(step));
  const layers = one.layers.filter(layer => other.layers.includes(layer));
  const at = (grid, layer, step) => grid.cells[grid.layers.indexOf(layer)][grid.steps.indexOf(step)];
  const cells = layers.map(layer => steps.map(step => {
    const [a, b] = [at(one, layer, step), at(other, layer, step)];
    return a && b ? {value: b.value - a.value} : null;
  }));
  return {layers, steps, cells};
}

function rangeOf(values) {
  const known = values.filter(Number.isFinite);
  return known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
}

// range: of colours, null: symmetrical about 0.
function heat(parent, grid, name, asked, range) {
  const values = grid.cells.map(line => line.map(cell => cell ? cell.value : null));
  const reach = Math.max(...values.flat().filter(Number.isFinite).map(Math.abs), 1e-12);
  const [zmin, zmax] = range ?? [-reach, reach];
  const open = cell => cell?.row !== undefined && origin(cell);
  const box = plot(parent, [{type: "heatmap", z: values, x: grid.steps.map(String), y: grid.layers.map(String), zmin, zmax,
    colorscale: range ? "Viridis" : "RdBu", colorbar: {thickness: 10, outlinewidth: 0},
    text: values.map(line => line.map(value => shown(value))),
    hovertemplate: "layer %{y}, step %{x}<br>%{text}<extra></extra>"}],
  {height: 120 + 34 * grid.layers.length, xaxis: {title: {text: "step"}, type: "category"},
    yaxis: {title: {text: "layer"}, type: "category"}}, `${name}: ${title(asked)}`,
  point => open(grid.cells[point.pointIndex[0]][point.pointIndex[1]]));
  byKeys(box, grid, `${name}: ${title(asked)}`, open);
}

// The cells of a heat map by keyboard: arrows move, Home and End go to the first and the last step, Page Up and Page
// Down to the last and the first layer, Enter opens. What the cell holds is said below the map.
const KEYS = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0], Home: [0, -Infinity],
  End: [0, Infinity], PageUp: [Infinity, 0], PageDown: [-Infinity, 0]};

function byKeys(box, grid, name, open) {
  const frame = el("div", {class: "cell", hidden: true});
  const said = el("p", {class: "note", role: "status"});
  const within = (place, count) => Math.max(0, Math.min(count - 1, place));
  let [layer, step] = [grid.layers.length - 1, grid.steps.length - 1];
  const outline = () => outlined(box, frame, step, layer);
  const show = () => {
    const cell = grid.cells[layer][step];
    said.textContent = `layer ${grid.layers[layer]}, step ${grid.steps[step].toLocaleString("en")}: ${
      cell ? shown(cell.value) : "not measured"}${cell?.row !== undefined ? "; Enter tells where it comes from" : ""}`;
    outline();
  };
  const map = el("div", {class: "keys", tabindex: 0, role: "application", "aria-roledescription": "heat map",
    "aria-label": `${name}. Arrow keys go from cell to cell.`, focus: show, blur: () => { frame.hidden = true; },
    keydown: event => {
      if (event.target !== map) return;  // a button of the plot
      if (KEYS[event.key]) {
        [layer, step] = [within(layer + KEYS[event.key][0], grid.layers.length), within(step + KEYS[event.key][1], grid.steps.length)];
        show();
      } else if (event.key === "Enter" || event.key === " ") {
        open(grid.cells[layer][step]);
      } else {
        return;
      }
      event.preventDefault();
    }});
  box.before(map);
  map.append(box);
  box.append(frame);
  box.on("plotly_afterplot", () => frame.hidden || outline());
  map.after(said);
}

// Put a frame around a cell of a heat map, wherever zooming has put it; cells that are not in sight have none.
function outlined(box, frame, column, row) {
  const [x, y, wide, high] = drawnArea(box);
  const side = (place, [first, last], size) => [(place - 0.5 - first) / (last - first) * size, size / (last - first)];
  const [left, width] = side(column, box.layout.xaxis.range, wide);
  const [bottom, height] = side(row, box.layout.yaxis.range, high);
  frame.hidden = left < -1 || left + width > wide + 1 || bottom < -1 || bottom + height > high + 1;
  Object.assign(frame.style, {left: `${x + left}px`, top: `${y + high - bottom - height}px`, width: `${width}px`,
    height: `${height}px`});
}

// Layer by layer before, at the slider's checkpoint, and after; and the change.
function profiles(main, params, asked, grids) {
  const steps = distinct(grids.flatMap(([, , grid]) => grid.steps)).sort((a, b) => a - b);
  const row = el("div", {class: "row"});
  const place = el("div", {});
  main.append(el("h2", {}, "Before, at a checkpoint, after"), place, row);
  const left = plot(row, [], {height: 360, xaxis: {title: {text: "layer"}, dtick: 1}, yaxis: {title: {text: asked.quantity}}},
    "Every layer: dotted the first checkpoint, dashed the chosen one, solid the last.",
    point => origin(point.data.cells[point.pointNumber]));
  const right = plot(row, [], {height: 360, xaxis: {title: {text: "layer"}, dtick: 1}, yaxis: {title: {text: "change"}}, barmode: "group"},
    "Change from the first checkpoint to the chosen one.");
  const follow = step => {
    const column = (grid, i) => grid.cells.map(line => line[i]);
    const curves = grids.flatMap(([letter, , grid], k) => {
      const chosenAt = Math.max(grid.steps.findLastIndex(one => one <= step), 0);
      return [["first", "dot", 0], ["chosen", "dash", chosenAt], ["last", "solid", grid.steps.length - 1]].map(([which, dash, i]) => ({
        type: "scatter", mode: "lines+markers", name: `${letter}, ${which}: step ${grid.steps[i].toLocaleString("en")}`, x: grid.layers,
        y: column(grid, i).map(cell => cell?.value ?? null), cells: column(grid, i), line: {color: COLOURS[k], dash}}));
    });
    const bars = grids.map(([letter, , grid], k) => {
      const chosenAt = Math.max(grid.steps.findLastIndex(one => one <= step), 0);
      return {type: "bar", name: letter, x: grid.layers, marker: {color: COLOURS[k]},
        y: grid.cells.map(line => line[0] && line[chosenAt] ? line[chosenAt].value - line[0].value : null)};
    });
    Plotly.react(left, curves, left.layout);
    Plotly.react(right, bars, right.layout);
  };
  place.replaceWith(checkpoints(steps, params, follow));
}
