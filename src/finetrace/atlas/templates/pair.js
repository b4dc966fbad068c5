// A | B: two trainings or two cells: settings, headline numbers with paired intervals, and which examples changed.

async function pair(main, params) {
  const places = study.places.filter(place => place.kind !== "shared");
  if (places.length < 2) return main.append(note("The study has one training only; there is nothing to compare."));
  const cells = distinct(places.map(place => place.cell)).filter(cell => places.filter(place => place.cell === cell).length > 1);
  const options = [...places.map(place => place.name), ...cells.map(cell => [cell, `${cell} (all seeds)`])];
  const known = name => options.some(option => (Array.isArray(option) ? option[0] : option) === name);
  const [first, second] = await usualPair(places);
  const a = known(params.get("a")) ? params.get("a") : first.name;
  const b = known(params.get("b")) ? params.get("b") : second.name;
  main.append(el("div", {class: "bar"}, choice("A", options, a, value => change({a: value})),
    choice("B", options, b, value => change({b: value})), el("button", {type: "button", click: () => change({a: b, b: a})}, "swap")));
  const [one, other] = [a, b].map(name => places.filter(place => place.name === name || place.cell === name));
  settings(main, one, other);
  headlineTable(main, one, other);
  if (one.length > 1 || other.length > 1) return main.append(note("Choose two single trainings to see which examples changed."));
  await examples(main, params, one[0], other[0]);
}

// Two trainings on one task whose answers are known, if there are; else the first two on one task.
async function usualPair(places) {
  for (const task of study.answers) {
    const {places: answered} = await part(`answers/${task}`);
    if (answered.length > 1) return answered.slice(0, 2).map(name => placeOf.get(name));
  }
  const tasks = grouped(places, "task");
  return [...tasks.values()].find(members => members.length > 1) ?? places;
}

function settings(main, one, other) {
  const merged = members => Object.fromEntries(distinct(members.flatMap(place => Object.keys(place.settings))).map(
    name => [name, distinct(members.map(place => place.settings[name] ?? "–")).join(", ")]));
  const [a, b] = [merged(one), merged(other)];
  const rows = distinct([...Object.keys(a), ...Object.keys(b)]).filter(name => a[name] !== b[name]).map(
    name => [name, a[name] ?? "–", b[name] ?? "–"]);
  main.append(el("h2", {}, "Settings that differ"), rows.length
    ? sortable([["setting", ""], ["A", ""], ["B", ""]], rows, "Settings that differ") : note("None."));
}

function headlineTable(main, one, other) {
  const both = study.headlines.filter(headline => one[0].kind === other[0].kind ? headline.kind === one[0].kind : false)
    .filter(headline => numbersOf(headline, one).length && numbersOf(headline, other).length);
  const rows = both.map(headline => {
    const [x, y] = [one, other].map(members => numbersOf(headline, members));
    const [m, n] = [x, y].map(found => mean(found.map(({value}) => value)));
    const paired = x.map(({place, value}) => [value, y.find(found => found.place.seed === place.seed)?.value])
      .filter(([, value]) => value !== undefined).map(([first, second]) => second - first);
    const half = paired.length > 1 ? halfWidth(paired) : NaN;
    const middle = paired.length ? mean(paired) : n - m;
    const digits = headline.digits;
    return [{text: `${headline.lens}: ${headline.heading}`, value: `${headline.lens}: ${headline.heading}`},
      numberOf(headline, x, shown(m, digits)), numberOf(headline, y, shown(n, digits)),
      {text: (middle > 0 ? "+" : "") + shown(middle, digits), value: middle},
      {text: Number.isNaN(half) ? "–" : `${shown(middle - half, digits)} … ${shown(middle + half, digits)}`, value: half},
      headline.says];
  });
  main.append(el("h2", {}, "Headline numbers"), rows.length ? sortable([["number", ""], ["A", ""], ["B", ""],
    ["B − A", "of the seeds that both have, where there are several"],
    ["95 %", "interval of the difference over seeds that both have (paired, Student's t); one seed has none"], ["says", ""]], rows,
  "Headline numbers of both") : note("No headline number of both is there."));
}

// --- which examples changed -----------------------------------------------------------------------------------------

async function examples(main, params, one, other) {
  main.append(el("h2", {}, "Which examples changed"));
  const packed = one.task && one.task === other.task && study.answers.includes(one.task) ? await part(`answers/${one.task}`) : null;
  if (!packed || ![one, other].every(place => packed.places.includes(place.name))) {
    return main.append(note("Not known: both have to be fine-tunings on one task of classes, with predictions (let calibration or features look there)."));
  }
  const {columns, label_names: names, sets, texts} = packed;
  const [said, says] = [one, other].map(place => columns[`said ${place.name}`]);
  const common = sets.filter((_, i) => range(packed.rows).some(row => columns.set[row] === i && said[row] !== 65535 && says[row] !== 65535));
  if (!common.length) return main.append(note("The two have no example in common."));
  const set = common.includes(params.get("set")) ? params.get("set") : common.includes("validation") ? "validation" : common[0];
  const rows = range(packed.rows).filter(row => columns.set[row] === sets.indexOf(set) && said[row] !== 65535 && says[row] !== 65535);
  const right = [said, says].map(answers => rows.map(row => answers[row] === columns.label[row]));
  const kinds = {lost: "right in A, wrong in B", won: "wrong in A, right in B", other: "wrong in both, differently"};
  const kind = kinds[params.get("changed")] ? params.get("changed") : "lost";
  const listed = rows.filter((row, i) => ({lost: right[0][i] && !right[1][i], won: !right[0][i] && right[1][i],
    other: !right[0][i] && !right[1][i] && said[row] !== says[row]})[kind]);
  const units = rows.map(row => columns.sentence[row]);
  main.append(el("div", {class: "bar"}, choice("examples of", common, set, value => change({set: value})),
    choice("show", Object.entries(kinds), kind, value => change({changed: value}))), summary(right, units));
  const table = listed.map(row => [columns.example[row], texts[row], names[columns.label[row]], names[said[row]], names[says[row]],
    columns[`since ${one.name}`][row], columns[`since ${other.name}`][row]]);
  const header = ["example", "text", "label", "A says", "B says", "A since step", "B since step"];
  main.append(sortable(header.map(text => [text, text.endsWith("step") ? "the checkpoint from which on the answer stands" : ""]),
    table, `${kinds[kind]}: ${table.length} of ${rows.length}`),
  el("button", {type: "button", click: () => save("examples.csv", csv([header, ...table]))}, "save as csv"));
}

function range(count) {
  return Array.from({length: count}, (_, i) => i);
}

// Accuracy of both, their difference with its interval, and McNemar's test: as in atlas/paired.py.
function summary([first, second], units) {
  const {difference: change, low, high} = pairedDifference(first, second, units);
  const lost = first.filter((right, i) => right && !second[i]).length;
  const won = second.filter((right, i) => right && !first[i]).length;
  const share = values => shown(values.filter(Boolean).length / values.length, 3);
  const p = distinct(units).length === units.length ? `; McNemar's exact p = ${shown(mcnemar(lost, won))}` : "";
  return el("p", {id: "paired"}, `${first.length} examples: accuracy ${share(first)} → ${share(second)}, difference ${
    change > 0 ? "+" : ""}${shown(change, 3)} (95 %: ${shown(low, 3)} … ${shown(high, 3)})${p}. Lost ${lost}, won ${won}.`);
}

// After Agresti and Min (2005): half a change is added in each direction; units belong together (words of a sentence).
function pairedDifference(first, second, units) {
  const changes = second.map((right, i) => Number(right) - Number(first[i]));
  const difference = mean(changes);
  const sums = new Map();
  changes.forEach((value, i) => sums.set(units[i], (sums.get(units[i]) ?? 0) + value - difference));
  const squares = [...sums.values()].reduce((sum, value) => sum + value ** 2, 0);
  const half = 1.959963984540054 * Math.sqrt(squares + 1) / (changes.length + 2);
  const middle = changes.reduce((sum, value) => sum + value, 0) / (changes.length + 2);
  return {difference, low: Math.max(middle - half, -1), high: Math.min(middle + half, 1)};
}

// Two-sided exact binomial test at one half; 1 where nothing differs.
function mcnemar(lost, won) {
  const n = lost + won;
  let term = -n * Math.LN2;  // logarithm of the probability of 0
  let tail = 0;
  for (let k = 0; k <= Math.min(lost, won); k++) {
    tail += Math.exp(term);
    term += Math.log(n - k) - Math.log(k + 1);
  }
  return n ? Math.min(1, 2 * tail) : 1;
}
