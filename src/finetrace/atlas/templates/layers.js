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
  const inside = chosen(params).filter(place => table.slices.some(([i]) => study.places[i] === place));
  main.append(filters(params), await chooser(asked, changed => change({q: written({...changed, layer: "*"})}),
    {layers: true, fixed: ["layer"]}));
  const grids = new Map(inside.map(place => [place.name, gridOf(rowsOf(table, asked, [place]))]).filter(([, grid]) => grid.steps.length));
  if (!grids.size) return main.append(note("No training that the filter leaves has this quantity."));
  const names = [...grids.keys()];
  const a = names.includes(params.get("a")) ? params.get("a") : names[0];
  const b = names.includes(params.get("b")) ? params.get("b") : "";
  main.append(el("div", {class: "bar"}, choice("A", names, a, value => change({a: value})),
    choice("B", [["", "(none)"], ...names], b, value => change({b: value}))));
  const row = el("div", {class: "row"});
  main.append(row);
  const [one, other] = [grids.get(a), grids.get(b)];
  const range = rangeOf([one, other].filter(Boolean).flatMap(grid => grid.cells.flat().map(cell => cell?.value)));
  heat(row, one, `A: ${a}`, asked, range);
  if (other) {
    heat(row, other, `B: ${b}`, asked, range);
    heat(row, difference(one, other), "B − A", asked, null);
  }
  profiles(main, params, asked, [["A", a, one], ["B", b, other]].filter(([, , grid]) => grid));
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
  plot(parent, [{type: "heatmap", z: values, x: grid.steps.map(String), y: grid.layers.map(String), zmin, zmax,
    colorscale: range ? "Viridis" : "RdBu", colorbar: {thickness: 10, outlinewidth: 0},
    text: values.map(line => line.map(value => shown(value))),
    hovertemplate: "layer %{y}, step %{x}<br>%{text}<extra></extra>"}],
  {height: 120 + 34 * grid.layers.length, xaxis: {title: {text: "step"}, type: "category"},
    yaxis: {title: {text: "layer"}, type: "category"}}, `${name}: ${title(asked)}`, point => {
    const cell = grid.cells[point.pointIndex[0]][point.pointIndex[1]];
    if (cell?.row !== undefined) origin(cell);
  });
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
      return [["dot", 0], ["dash", chosenAt], ["solid", grid.steps.length - 1]].map(([dash, i]) => ({
        type: "scatter", mode: "lines+markers", name: `${letter}, step ${grid.steps[i]}`, x: grid.layers,
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
