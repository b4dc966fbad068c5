// Who leads: phases of a training, and which signal moves before which.

async function leads(main, params) {
  if (!study.courses.length) {
    return main.append(note("No training has enough checkpoints at which several lenses looked (five at least)."));
  }
  const cell = study.courses.includes(params.get("cell")) ? params.get("cell") : study.courses[0];
  main.append(el("div", {class: "bar"}, choice("training", study.courses, cell, value => change({cell: value, first: "", second: ""}))),
    el("h2", {}, "Phases"));
  const of = async name => records(await part(`courses/${name}`)).filter(row => row.cell === cell);
  const [signals, maps, phases, turns, pairs] = await Promise.all(["signals", "maps", "phases", "turns", "leads"].map(of));
  phasesOf(main, maps, phases, turns);
  coursesOf(main, signals, phases);
  main.append(el("h2", {}, "Which signal moves first"));
  pairsOf(main, params, pairs);
}

// The rows of a packed part as objects; texts in place of their numbers.
function records(packed) {
  const names = Object.keys(packed.columns);
  return range(packed.rows).map(i => Object.fromEntries(names.map(name => [
    name, packed.texts[name] ? packed.texts[name][packed.columns[name][i]] : packed.columns[name][i]])));
}

function phasesOf(main, maps, phases, turns) {
  if (!maps.length) return main.append(note("Too little for a map of phases."));
  const {verdict, reason, states, criterion} = maps[0];
  main.append(el("p", {}, verdict === "phases" ? `${states} phases (their number by the likelihood of ${criterion}). ${reason}`
    : `${verdict === "none" ? "No phases" : "Undecided"}: ${reason}`));
  if (verdict !== "phases") return;
  const steps = distinct(maps.map(row => row.step)).sort((a, b) => a - b);
  const runs = distinct(maps.map(row => row.place));
  const state = new Map(maps.map(row => [`${row.place} ${row.step}`, row.state]));
  const other = new Set(maps.filter(row => row.other_way === "True").map(row => row.place));
  plot(main, [{type: "heatmap", x: steps.map(String), y: runs.map(run => other.has(run) ? `${run} (another way)` : run),
    z: runs.map(run => steps.map(step => state.get(`${run} ${step}`) ?? null)), colorscale: "Viridis", showscale: false,
    hovertemplate: "%{y}<br>step %{x}: phase %{z}<extra></extra>", xgap: 1, ygap: 2}],
  {height: 110 + 26 * runs.length, xaxis: {type: "category", title: {text: "step"}}, yaxis: {type: "category"}},
  `Phase of every training at every checkpoint${other.size ? "; trainings whose path differs from most are marked" : ""}.`);
  const names = distinct(phases.map(row => row.signal));
  const numbers = distinct(phases.map(row => row.state)).sort((a, b) => a - b);
  const of = (number, name) => phases.find(row => row.state === number && row.signal === name);
  plot(main, [{type: "heatmap", y: names, x: numbers.map(number => {
    const {first_step: from, last_step: to} = phases.find(row => row.state === number);
    return `phase ${number}: ${from}–${to}`;
  }), z: names.map(name => numbers.map(number => of(number, name)?.standardised ?? null)), zmid: 0, colorscale: "RdBu",
  text: names.map(name => numbers.map(number => shown(of(number, name)?.mean))), texttemplate: "%{text}",
  hovertemplate: "%{y}<br>%{x}: %{text} (%{z:.2f} sd)<extra></extra>", colorbar: {thickness: 10, title: {text: "sd"}}}],
  {height: 120 + 22 * names.length, xaxis: {type: "category"}, yaxis: {type: "category", autorange: "reversed"}},
  "What a phase is like: the mean of every signal in it (text), and in standard deviations from its mean (colour).");
  const largest = turns.filter(row => row.largest === "True");
  main.append(sortable([["from phase", ""], ["to phase", ""], ["between steps", ""], ["changes most", "signal with the largest change"],
    ["by", "in standard deviations"], ["moves first", "lens whose signal is halfway first"]], largest.map(row => [row.before, row.after,
    {text: `${row.step_before} and ${row.step_after}`, value: row.step_before}, row.signal, {text: shown(row.change, 2), value: row.change},
    row.moves]), "Turns from phase to phase"));
}

function coursesOf(main, signals, phases) {
  const names = distinct(signals.map(row => row.signal));
  const lines = names.map((name, i) => {
    const mine = signals.filter(row => row.signal === name);
    const steps = distinct(mine.map(row => row.step)).sort((a, b) => a - b);
    const values = steps.map(step => mean(mine.filter(row => row.step === step).map(row => row.value)));
    const [least, greatest] = [Math.min(...values), Math.max(...values)];
    return {type: "scatter", mode: "lines+markers", name: `${name} (${mine[0].heading})`, x: steps, text: values.map(value => shown(value)),
      y: values.map(value => (value - least) / (greatest - least || 1)), line: {color: COLOURS[i % COLOURS.length]},
      visible: i < 8 ? true : "legendonly", hovertemplate: "%{fullData.name}<br>step %{x}: %{text}<extra></extra>"};
  });
  const bounds = distinct(phases.map(row => row.first_step)).slice(1);
  plot(main, lines, {height: 460 + 10 * names.length, xaxis: {title: {text: "step"}}, yaxis: {title: {text: "from least to greatest"}},
    shapes: bounds.map(x => ({type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: {color: colour("faint"), dash: "dot"}}))},
  "The signals, means over seeds, each from its least to its greatest value; dotted where a phase begins. Click names to show or hide.");
}

function pairsOf(main, params, pairs) {
  if (!pairs.length) return main.append(note("Too little to ask."));
  const key = row => `${row.first} | ${row.second}`;
  const best = pairs.filter(row => row.lag === row.best_lag);
  const decided = best.filter(row => !["none", "undecided"].includes(row.verdict));
  const {seeds, changes} = best[0];
  main.append(el("p", {}, `${best.length} pairs of signals, ${seeds} ${seeds === 1 ? "training" : "seeds"}, ${changes} changes from checkpoint `
    + `to checkpoint; in ${decided.length} pairs one can be said to lead or both to move together. `
    + (best.every(row => row.verdict === "undecided") ? best[0].reason : "")));
  const rows = best.map(row => [{node: el("button", {type: "button", class: "plain",
    click: () => change({first: row.first, second: row.second})}, key(row)), value: key(row)}, row.verdict,
  {text: row.best_lag, value: row.best_lag}, {text: shown(row.correlation, 2), value: row.correlation},
  {text: shown(row.p, 3), value: Number.isNaN(row.p) ? "" : row.p}, {text: shown(row.p_cell, 3), value: Number.isNaN(row.p_cell) ? "" : row.p_cell}]);
  const asked = best.find(row => row.first === params.get("first") && row.second === params.get("second")) ?? decided[0] ?? best[0];
  const mine = pairs.filter(row => key(row) === key(asked)).sort((a, b) => a.lag - b.lag);
  const lags = mine.map(row => row.lag);
  const band = (low, high, name, fill) => ({type: "scatter", mode: "lines", fill: "toself", fillcolor: fill, line: {width: 0}, name,
    hoverinfo: "skip", x: [...lags, ...[...lags].reverse()], y: [...mine.map(row => row[high]), ...mine.map(row => row[low]).reverse()]});
  const known = mine.some(row => Number.isFinite(row.null_low));
  plot(main, [...known ? [band("null_low", "null_high", "seeds shuffled", `${COLOURS[1]}22`), band("low", "high", "95 %", `${COLOURS[0]}33`)] : [],
    {type: "scatter", mode: "lines+markers", name: "correlation", x: lags, y: mine.map(row => row.correlation), line: {color: COLOURS[0]}}],
  {height: 380, xaxis: {title: {text: "lag in checkpoints<br>(right: the first moves first)"}, dtick: 1},
    yaxis: {title: {text: "correlation of changes"}, range: [-1.05, 1.05]}},
  `${asked.first} and ${asked.second}: ${asked.verdict}. ${asked.reason}`);
  main.append(sortable([["pair", "click to see its correlations"], ["verdict", ""], ["lag", "in checkpoints; positive: the first moves first"],
    ["correlation", "of the changes at this lag"], ["p", "paid for the search of lags"],
    ["p of all", "paid for all pairs of this training, too"]], rows, "All pairs"));
}
