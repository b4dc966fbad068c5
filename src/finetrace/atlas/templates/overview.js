// Overview: model x task x method with the headline numbers of the lenses, mean and spread over seeds.

const KINDS = {"fine-tuning": "fine-tunings", masked: "masked-word trainings"};

function overview(main, params) {
  const kinds = Object.keys(KINDS).filter(kind => study.places.some(place => place.kind === kind));
  const kind = kinds.includes(params.get("kind")) ? params.get("kind") : kinds[0];
  main.append(note(study.intro));
  if (!kind) return main.append(note("Nothing of the study is finished yet: run finetrace repro."));
  const lenses = distinct(study.headlines.filter(one => one.kind === kind).map(one => one.lens));
  const lens = lenses.includes(params.get("lens")) ? params.get("lens") : lenses[0];
  const by = params.get("rows") ?? "cell";
  main.append(filters(params), el("div", {class: "bar"},
    choice("show", kinds.map(one => [one, KINDS[one]]), kind, value => change({kind: value, lens: ""})),
    choice("numbers of", lenses, lens, value => change({lens: value})),
    choice("one row for", orSetting([["cell", "model × task × method"], ["model", "each model"], ["task", "each task"],
      ["method", "each method"], ["place", "each training"]]), by, value => change({rows: value}))));
  const places = chosen(params, [kind]);
  const twice = places.every(place => place.numbers[METRIC] === place.numbers[ACCURACY]);  // the metric is the accuracy
  const headlines = study.headlines.filter(one => one.kind === kind && one.lens === lens && !(twice && one.name === METRIC)
    && places.some(place => place.numbers[one.name] !== undefined));
  const measured = places.filter(place => headlines.some(one => place.numbers[one.name] !== undefined));
  const groups = grouped(measured, by === "place" ? "name" : by);
  const floorsOf = headline => headline.name !== ACCURACY ? [] : FLOORS.filter(([floor]) => measured.some(
    place => floorOf([place], floor) !== undefined));
  const header = [[by === "place" || by === "cell" ? "training" : by.replace(SETTING, ""), "what was trained"],
    ["n", "trainings behind the numbers"], ...headlines.flatMap(one => [[one.heading, one.says], ...floorsOf(one)])];
  const rows = [...groups].map(([name, members]) => [
    {node: members.length > 1 ? el("span", {}, name) : link(members[0], ["cell", "place"].includes(by) ? undefined : name), value: name},
    {text: members.length, value: members.length}, ...headlines.flatMap(one => [cellOf(one, members),
      ...floorsOf(one).map(([floor]) => floorOf(members, floor)).map(value => ({text: shown(value, 3), value}))])]);
  main.append(sortable(header, rows, `${KINDS[kind]}: ${lens}. Means ± standard deviation over trainings; click a number `
    + "for its trainings, a heading to sort, rest on a heading for its meaning."));
  if (headlines.length) dots(main, params, headlines, groups);
}

const [METRIC, ACCURACY] = ["metric", "accuracy|validation/pearson|validation/micro_f1"].map(name => `trajectory/validation/${name}`);
const FLOORS = [["majority", "accuracy of always saying the most frequent class"],
  ["bag of words", "accuracy of a logistic regression on word counts"]];

// What trainings of one task could do without a model; undefined for several tasks, and where it is not known.
function floorOf(members, floor) {
  const values = distinct(members.map(place => study.baselines[place.task]?.[floor]));
  return values.length === 1 ? values[0] : undefined;
}

function grouped(places, by) {
  const groups = new Map();
  for (const place of places) groups.set(valueOf(place, by), [...groups.get(valueOf(place, by)) ?? [], place]);
  return groups;
}

function link(place, text = place.name) {
  return place.page ? el("a", {href: place.page}, text) : el("span", {}, text);
}

function numbersOf(headline, members) {
  return members.map(place => ({place, value: place.numbers[headline.name]}))
    .filter(({value}) => value !== undefined && value !== null);
}

function cellOf(headline, members) {
  const found = numbersOf(headline, members);
  if (!found.length) return {text: "–", value: ""};
  const values = found.map(({value}) => value);
  return numberOf(headline, found, shown(mean(values), headline.digits)
    + (values.length > 1 ? ` ± ${shown(spread(values), headline.digits)}` : ""));
}

// The mean of a headline number as a cell of a table, which tells its trainings. text: as it is shown.
function numberOf(headline, found, text) {
  const button = el("button", {type: "button", class: "plain", click: () => trainings(headline, found)}, text);
  return {node: button, value: mean(found.map(({value}) => value))};
}

// The trainings behind a number, best first where a direction is better.
function trainings(headline, found) {
  const sign = headline.direction === "up" ? -1 : 1;
  const ranked = [...found].sort((a, b) => sign * (a.value - b.value));
  const from = ({place, value}) => origin({place: place.name, lens: headline.lens,
    quantity: headline.name.slice(headline.lens.length + 1), value, row: place.rows[headline.name]});
  if (ranked.length === 1) return from(ranked[0]);
  const values = found.map(({value}) => value);
  const words = headline.direction ? ["best", "worst"] : ["lowest", "highest"];
  const box = document.getElementById("origin");
  box.replaceChildren(el("form", {method: "dialog"}, el("h2", {}, `${headline.lens}: ${headline.heading}`),
    el("p", {}, headline.says),
    el("p", {}, `mean ${shown(mean(values), headline.digits)}, 95 % interval of the mean ± ${
      shown(halfWidth(values), headline.digits)} (Student's t, n = ${values.length})`),
    el("ol", {}, ranked.map(({place, value}, i) => el("li", {}, link(place), " ", el("button", {type: "button", class: "plain",
      click: () => from({place, value})}, shown(value, headline.digits)), i === 0 ? ` (${words[0]})` : i === ranked.length - 1 ? ` (${words[1]})` : ""))), el("button", {}, "Close")));
  box.showModal();
}

function dots(main, params, headlines, groups) {
  const headline = headlines.find(one => one.name === params.get("number")) ?? headlines[0];
  main.append(el("h2", {}, "Every training"), el("div", {class: "bar"}, choice("number",
    headlines.map(one => [one.name, one.heading]), headline.name, value => change({number: value}))));
  const names = [...groups.keys()].filter(name => numbersOf(headline, groups.get(name)).length);
  const found = names.flatMap(name => numbersOf(headline, groups.get(name)).map(one => ({...one, name})));
  const means = names.map(name => mean(numbersOf(headline, groups.get(name)).map(({value}) => value)));
  const traces = [{type: "scatter", mode: "markers", name: "training", x: found.map(one => one.value), y: found.map(one => one.name),
    text: found.map(one => one.place.name), hovertemplate: "%{text}<br>%{x}<extra></extra>",
    marker: {color: COLOURS[0], size: 9, opacity: 0.75}},
  {type: "scatter", mode: "markers", name: "mean", x: means, y: names, hovertemplate: "%{y}<br>mean %{x}<extra></extra>",
    marker: {color: COLOURS[1], size: 16, symbol: "line-ns-open"}}];
  if (headline.name === ACCURACY) {
    for (const [name, symbol] of [["majority", "x-thin-open"], ["bag of words", "cross-thin-open"]]) {
      const rows = names.map(row => [row, floorOf(groups.get(row), name)]).filter(([, value]) => value !== undefined);
      if (rows.length) traces.push({type: "scatter", mode: "markers", name, x: rows.map(([, value]) => value),
        y: rows.map(([row]) => row), hovertemplate: `%{y}<br>${name} %{x}<extra></extra>`,
        marker: {symbol, size: 8, color: colour("faint")}});
    }
  }
  const [least, greatest] = [Math.min, Math.max].map(end => end(...traces.flatMap(({x}) => x)));
  const room = least === greatest ? {range: [least - (Math.abs(least) / 10 || 1), least + (Math.abs(least) / 10 || 1)]} : {};
  plot(main, traces, {height: 150 + 26 * names.length, yaxis: {autorange: "reversed", type: "category"},
    xaxis: {title: {text: headline.heading + (headline.unit ? ` (${headline.unit})` : "")}, ...room}},
  `${headline.heading}: ${headline.says}. A dot is a training, a line the mean.`, point => {
    const one = found[point.pointNumber];
    if (point.curveNumber === 0) trainings(headline, [one]);
  });
}
