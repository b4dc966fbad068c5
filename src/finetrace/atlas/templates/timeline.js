// Timeline: quantities of any lenses over steps, examples, tokens or epochs; seeds as bands; one slider for all panels.

const AXES = {step: "optimiser steps", examples: "training examples seen", tokens: "training tokens seen",
  epoch: "passes over the training set"};
const MOST_LINES = 120;
const DASHES = ["solid", "dash", "dot", "dashdot"];

async function timeline(main, params) {
  const first = study.lenses.find(lens => lens.name === "trajectory") ?? study.lenses[0];
  if (!first) return main.append(note("No lens has looked yet: run finetrace repro."));
  const wanted = (await Promise.all(params.getAll("q").map(text => valid(parseQuantity(text))))).filter(Boolean);
  if (!wanted.length) {
    const table = await part(`table/${first.name}`);
    const names = quantities(table);
    wanted.push(usual(table, first.name, names.includes("loss") ? "loss" : names[0]));
  }
  const by = params.get("by") ?? "cell";
  const axis = AXES[params.get("x")] ? params.get("x") : "step";
  const log = params.get("log") === "1";
  const places = chosen(params);
  const tasks = distinct(places.map(place => place.task));
  const layout = params.get("panels") ?? (tasks.length > 1 ? "tasks" : "apart");
  main.append(filters(params), el("div", {class: "bar"},
    choice("over", Object.entries(AXES), axis, value => change({x: value})),
    switchOf("logarithmic", log, on => change({log: on ? "1" : ""})),
    choice("a line for", orSetting([["cell", "each model × task × method, seeds as a band"], ["name", "each training"],
      ["model", "each model"], ["method", "each method"]]), by, value => change({by: value})),
    choice("panels", [["tasks", "one for each task"], ["apart", "one for each quantity"], ["together", "together, own axes"],
      ["scaled", "together, each line from 0 to 1"]], layout, value => change({panels: value}))));
  const store = changed => change({q: changed.map(written)});
  const courses = [];
  for (const [i, asked] of wanted.entries()) {
    const row = await chooser(asked, changed => store(wanted.map((one, j) => j === i ? changed : one)));
    if (wanted.length > 1) {
      row.append(el("button", {type: "button", click: () => store(wanted.filter((_, j) => j !== i)),
        "aria-label": `remove ${title(asked)}`}, "remove"));
    }
    main.append(row);
    const table = await part(`table/${asked.lens}`);
    for (const task of layout === "tasks" ? tasks : [null]) {
      const there = task === null ? places : places.filter(place => place.task === task);
      const heading = title(asked) + (task === null ? "" : task ? ` on ${task}` : " in trainings on text");
      const lines = linesOf(rowsOf(table, asked, there), asked, by, axis);
      if (task === null || lines.length) courses.push({asked, heading, lines});
    }
  }
  main.append(el("button", {type: "button", click: () => store([...wanted, wanted[wanted.length - 1]])}, "add a quantity"));
  if (!courses.some(({lines}) => lines.length)) {
    return main.append(note(`Nothing here has been measured over ${AXES[axis]} for the trainings that the filter leaves.`));
  }
  const boxes = draw(main, courses, axis, log, layout);
  slider(main, params, courses, boxes, axis);
}

// Lines of a quantity: {name, points: [{x, step, mean, low, high, values, rows}]}, seeds of a group averaged.
function linesOf(rows, asked, by, axis) {
  const each = FACETS.filter(name => asked[name] === "*");
  const groups = new Map();
  for (const row of rows) {
    if (Number.isNaN(row.value) || Number.isNaN(row[axis])) continue;
    const name = [valueOf(placeOf.get(row.place), by), ...each.map(facet => facetText(facet, row[facet]))].join(", ");
    if (!groups.has(name)) groups.set(name, new Map());
    const members = groups.get(name);
    if (!members.has(row.place)) members.set(row.place, new Map());
    members.get(row.place).set(axis === "examples" ? row.examples : row.step, row);  // several examples lie in a step
  }
  return [...groups].map(([name, members]) => ({name, points: averaged([...members.values()], axis)}));
}

// members: of every training, its rows by time. Times at which all were measured; if there are none, all times.
function averaged(members, axis) {
  const times = distinct(members.flatMap(one => [...one.keys()])).sort((a, b) => a - b);
  const common = times.filter(time => members.every(one => one.has(time)));
  return (common.length ? common : times).map(time => {
    const rows = members.filter(one => one.has(time)).map(one => one.get(time));
    const values = rows.map(row => row.value);
    const middle = mean(values);
    const half = values.length > 1 ? halfWidth(values) : NaN;
    const [low, high] = values.length > 1 ? [middle - half, middle + half] : [rows[0].low, rows[0].high];
    return {x: mean(rows.map(row => row[axis])), step: rows[0].step, mean: middle, low, high, rows};
  });
}

function draw(main, courses, axis, log, layout) {
  const x = {title: {text: AXES[axis]}, type: log ? "log" : "linear"};
  const more = courses.some(({lines}) => lines.length > MOST_LINES);
  if (more) main.append(note(`Only the first ${MOST_LINES} lines are drawn; filter, or let a line stand for more trainings.`));
  if (layout === "apart" || layout === "tasks") {
    return courses.map(({asked, heading, lines}) => plot(main, traces(lines, log), {xaxis: x, yaxis: {title: {text: asked.quantity}},
      height: 360 + 9 * Math.min(lines.length, 30)}, `${heading}. Bands: 95 % interval over seeds; of one training, `
      + `that of the measurement where there is one.${log ? " What lies at 0 has no place on this axis." : ""}`, point => origin(point.data.points[point.pointNumber].rows[0])));
  }
  const scaled = layout === "scaled";
  const all = courses.flatMap(({asked, lines}, i) => traces(lines, log, {scaled, band: false, first: i, dash: DASHES[i % DASHES.length],
    name: line => `${title(asked)}: ${line}`, axis: scaled || !i ? "y" : `y${i + 1}`}));
  const axes = Object.fromEntries(scaled ? [["yaxis", {title: {text: "each line from its least to its greatest"}}]]
    : courses.map(({asked}, i) => [i ? `yaxis${i + 1}` : "yaxis", {title: {text: asked.quantity}, ...i ? {overlaying: "y",
      side: i % 2 ? "right" : "left", anchor: "free", autoshift: true, showgrid: false, tickmode: "auto"} : {}}]));
  return [plot(main, all, {xaxis: x, ...axes, height: 560}, `${courses.map(({asked}) => title(asked)).join("; ")}, in one figure.`,
    point => origin(point.data.points[point.pointNumber].rows[0]))];
}

function traces(lines, log, {scaled = false, band = true, first = 0, dash, name = text => text, axis = "y"} = {}) {
  return lines.slice(0, MOST_LINES).flatMap((line, i) => {
    const points = log ? line.points.filter(point => point.x > 0) : line.points;
    const values = points.map(point => point.mean);
    const [least, greatest] = [Math.min(...values), Math.max(...values)];
    const scale = value => scaled ? (value - least) / (greatest - least || 1) : value;
    const own = COLOURS[(first + i) % COLOURS.length];
    const x = points.map(point => point.x);
    const made = [{type: "scatter", mode: points.length > 60 ? "lines" : "lines+markers", name: name(line.name), x, yaxis: axis,
      y: values.map(scale), points, customdata: points.map(point => [shown(point.mean), point.step, point.rows.length]),
      line: {color: own, width: 2, dash: dash ?? DASHES[Math.floor(i / COLOURS.length) % DASHES.length]}, marker: {size: 5}, legendgroup: line.name + name(line.name),
      hovertemplate: "%{fullData.name}<br>%{customdata[0]} at step %{customdata[1]} (n = %{customdata[2]})<extra></extra>"}];
    const banded = points.filter(point => Number.isFinite(point.low) && Number.isFinite(point.high));
    if (band && banded.length > 1) {
      made.push({type: "scatter", mode: "lines", x: [...banded.map(point => point.x), ...banded.map(point => point.x).reverse()],
        y: [...banded.map(point => point.high), ...banded.map(point => point.low).reverse()], fill: "toself", yaxis: axis,
        fillcolor: `${own}33`, line: {width: 0}, hoverinfo: "skip", showlegend: false, legendgroup: line.name + name(line.name)});
    }
    return made;
  });
}

// One slider over all steps that any line has; a line in every panel and a table of the values follow.
function slider(main, params, courses, boxes, axis) {
  const steps = distinct(courses.flatMap(({lines}) => lines.flatMap(line => line.points.map(point => point.step)))).sort((a, b) => a - b);
  const rows = courses.flatMap(({heading, lines}) => lines.slice(0, MOST_LINES).map(line => {
    const row = {heading, line, nodes: {low: el("span"), high: el("span"), step: el("span")}};
    row.nodes.mean = el("button", {type: "button", class: "plain", click: () => origin(row.point.rows[0])});
    return row;
  }));
  const table = sortable([["quantity", ""], ["line", ""], ["value", "the last one measured until this step"], ["low", ""],
    ["high", ""], ["step", "at which it was measured"]], rows.map(({heading, line, nodes}) => [heading, line.name,
    ...["mean", "low", "high", "step"].map(name => ({node: nodes[name], value: 0}))]), "Values at a step");
  const follow = step => {
    const x = axis === "step" ? step : placed(courses, step);
    for (const box of boxes) mark(box, x);
    for (const row of rows) {
      row.point = row.line.points.findLast(one => one.step <= step);
      row.nodes.mean.disabled = !row.point;
      for (const [name, node] of Object.entries(row.nodes)) {
        node.textContent = shown(row.point?.[name]);
        sortedBy(node.parentNode, row.point?.[name]);
      }
    }
    table.querySelector("p.note").textContent = `Values at step ${step.toLocaleString("en")}`;
  };
  main.append(checkpoints(steps, params, follow), table);
  const content = () => csv([["quantity", "line", "x", "step", "value", "low", "high", "n"], ...courses.flatMap(({heading, lines}) =>
    lines.flatMap(line => line.points.map(point => [heading, line.name, point.x, point.step, point.mean, point.low,
      point.high, point.rows.length])))]);
  main.append(el("button", {type: "button", click: () => save("timeline.csv", content())}, "save as csv"));
}

// Mark a place on the x axis of a plot by a line of its own above it: Plotly would draw everything anew at every move.
function mark(box, x) {
  if (!box.marker) {
    box.marker = el("div", {class: "mark"});
    box.append(box.marker);
    box.on("plotly_afterplot", () => mark(box, box.marked));
  }
  box.marked = x;
  const {range: [first, last], type} = box.layout.xaxis;
  const share = ((type === "log" ? Math.log10(x) : x) - first) / (last - first);
  const [left, top, width, height] = drawnArea(box);
  box.marker.hidden = !(share >= 0 && share <= 1);
  Object.assign(box.marker.style, {left: `${left + share * width}px`, top: `${top}px`, height: `${height}px`});
}

// Where a step lies on another axis: by the line that has it, or the last one before.
function placed(courses, step) {
  const points = courses.flatMap(({lines}) => lines.flatMap(line => line.points)).filter(point => point.step <= step);
  return points.length ? points.reduce((best, point) => point.step > best.step ? point : best).x : 0;
}
