// Which view is shown: as the address says.

const VIEWS = {
  overview: ["Overview", overview], timeline: ["Timeline", timeline], layers: ["Layers", layers], pair: ["A | B", pair],
  leads: ["Who leads", leads], taught: ["Who taught", taught], tables: ["Tables", tables], figures: ["Figures", figures],
};
const KEPT = [...FILTERS, ...differing, "at"];  // go along to another view
let turn = 0;

async function render() {
  const mine = ++turn;
  const focused = focusNow();
  const open = [...document.querySelectorAll("details[open]")].map(list => list.dataset.name);
  const {view, params} = asked();
  const kept = new URLSearchParams([...params].filter(([name]) => KEPT.includes(name)));
  document.getElementById("views").replaceChildren(...Object.entries(VIEWS).map(([name, [text]]) => el("a", {
    href: address(name, name === view ? params : kept), "aria-current": name === view ? "page" : null}, text)));
  const fresh = el("main", {id: "main", tabindex: -1}, el("h1", {}, VIEWS[view][0]));
  const shownNow = document.getElementById("main");
  shownNow.setAttribute("aria-busy", "true");
  fresh.style.visibility = "hidden";
  shownNow.after(fresh);
  try {
    await VIEWS[view][1](fresh, params);
  } catch (error) {
    fresh.append(el("p", {class: "problem", role: "alert"}, `This cannot be shown: ${error.message}`));
    console.error(error);
  }
  if (mine !== turn) return fresh.remove();  // another address came in between
  shownNow.remove();
  fresh.style.visibility = "";
  document.title = `${VIEWS[view][0]} · ${study.title}`;
  if (document.documentElement.dataset.ready === view) {
    for (const list of fresh.querySelectorAll("details")) list.open = open.includes(list.dataset.name);
  }
  document.documentElement.dataset.ready = view;
  const control = focused && controls(focused.name)[focused.nth];
  if (control) (control.querySelector("select, input") ?? control).focus();
}

const CONTROLS = "#views a, #main label, #main button";

// The control that has the focus, by what the view drawn anew has as well: {name, nth: of those with this name}.
function focusNow() {
  const control = document.activeElement?.closest(CONTROLS);
  const name = control && nameOf(control);
  return control ? {name, nth: controls(name).indexOf(control)} : null;
}

function controls(name) {
  return [...document.querySelectorAll(CONTROLS)].filter(control => nameOf(control) === name);
}

function nameOf(control) {
  return `${control.closest("details")?.dataset.name ?? ""} ${control.textContent}`;
}

// Keep the address of what a slider shows, without drawing everything anew.
function quietly(changes) {
  const {view, params} = asked();
  for (const [name, value] of Object.entries(changes)) params.set(name, value);
  try {
    history.replaceState(null, "", address(view, params));
  } catch (error) {
    console.info("the address cannot be kept here", error.message);  // inside another page's sandbox
  }
}

document.getElementById("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  render();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
addEventListener("hashchange", render);
render();
