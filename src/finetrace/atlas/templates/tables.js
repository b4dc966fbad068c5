// The published studies' tables, and the figures that belong to several trainings.

function tables(main) {
  if (!study.reports.length) main.append(note("This study holds none of the published tables (finetrace table)."));
  for (const {heading, html} of study.reports) {
    const box = el("div", {class: "wide report", tabindex: 0, role: "region", "aria-label": heading});
    box.innerHTML = html;  // made from the project's own Markdown, with HTML in texts escaped (atlas/page.py)
    main.append(el("h2", {}, heading), box);
  }
}

function figures(main, params) {
  if (!study.figures.length) return main.append(note("No figures yet."));
  const subject = caption => caption.split(/[:;.]( |$)/)[0];
  const subjects = distinct(study.figures.map(([, caption]) => subject(caption)));
  const about = subjects.includes(params.get("about")) ? params.get("about") : "";
  main.append(el("div", {class: "bar"}, choice("about", [["", `everything (${study.figures.length} figures)`], ...subjects], about,
    value => change({about: value}))));
  for (const [address, caption] of study.figures.filter(([, text]) => !about || subject(text) === about)) {
    main.append(el("figure", {}, el("a", {href: address}, el("img", {src: address, alt: caption, loading: "lazy"})),
      el("figcaption", {}, caption)));
  }
}
