// Who taught: of an evaluation example, the training examples that lowered its loss most and those that raised it most,
// over the training; or those whose gradients are most and least like its own at the end.

const OF_RANK = [...DASHES, "longdash", "longdashdot"];

const RANKINGS = {
  influence: ["influence over the training", "drop of the evaluation example's loss that training on this one brought, to first order (in the unit of the loss)",
    [["helpful", "Helpful", "lowered its loss most", "raised its loss least: none lowered it"],
      ["harmful", "Harmful", "raised its loss most", "lowered its loss least: none raised it"]]],
  cosine: ["likeness of gradients after training", "cosine of the two examples' loss gradients at the last checkpoint",
    [["alike", "Alike", "have the gradients most like its own", "have the gradients least opposed to its own: none are like it"],
      ["opposed", "Opposed", "have the gradients most opposed to its own", "have the gradients least like its own: none are opposed"]]]};
// Of each list: kind, heading, what its examples did, and what they did where not even the first has the list's sign.

async function taught(main, params) {
  if (!study.influence.length) {
    return main.append(note("No training has been looked at by the lens influence (docs/influence.md; look: {influence: …})."));
  }
  const names = study.influence.map(([place]) => place);
  const name = names.includes(params.get("place")) ? params.get("place") : names[0];
  const packed = await part(study.influence[names.indexOf(name)][1]);
  const rows = records(packed);
  const examples = [...new Map(rows.map(row => [row.eval_example_id, row])).values()];
  const example = examples.find(row => String(row.eval_example_id) === params.get("example")) ?? examples[0];
  const by = RANKINGS[params.get("by")] ? params.get("by") : "influence";
  const [, unit, lists] = RANKINGS[by];
  main.append(el("div", {class: "bar"}, choice("training", names, name, value => change({place: value})),
    choice("ranked by", Object.entries(RANKINGS).map(([key, [says]]) => [key, says]), by, value => change({by: value})),
    choice("example", examples.map(row => [row.eval_example_id, `${row.eval_example_id}: ${row.eval_text}`]),
      example.eval_example_id, value => change({example: value}))),
  el("p", {id: "taught"}, el("strong", {}, example.eval_text), ` (${example.eval_label})`));
  const listed = rows.filter(row => row.eval_example_id === example.eval_example_id && lists.some(([kind]) => kind === row.kind));
  lists.forEach(([kind, heading, says, otherwise], i) => {
    const those = listed.filter(row => row.kind === kind);
    const none = those.every(row => i === 0 ? row[by] <= 0 : row[by] >= 0);
    main.append(el("h2", {}, heading), sortable([["rank", ""], ["text", ""], ["label", ""], [by, unit],
      ["example", "number in the training set"]],
    those.map(row => [row.rank, row.train_text, row.train_label, {text: shown(row[by]), value: row[by]}, row.train_example_id]),
    `Training examples that ${none ? otherwise : says}`));
  });
  const steps = Object.keys(packed.columns).filter(column => column.startsWith("step_"));
  plot(main, listed.map(row => ({type: "scatter", mode: "lines+markers", name: `${row.kind} ${row.rank}`,
    x: steps.map(column => Number(column.slice("step_".length))), y: steps.map(column => row[column]),
    line: {color: COLOURS[row.kind === lists[0][0] ? 0 : 1], dash: OF_RANK[(row.rank - 1) % OF_RANK.length]},
    hovertemplate: `${row.kind} ${row.rank}: %{y:.4g} around step %{x}<extra></extra>`})),
  {xaxis: {title: {text: "checkpoint (step)"}}, yaxis: {title: {text: "influence around it"}}},
  "When: the influence of each training example around each checkpoint; their sum is its influence.");
  const {page} = placeOf.get(name);
  main.append(note("All of it: ", el("code", {}, `outputs/${name}/influence/pairs.parquet`), "; ",
    el("a", {href: `${page}#influence`}, "figures of the lens"), "; how it is measured: docs/influence.md."));
}
