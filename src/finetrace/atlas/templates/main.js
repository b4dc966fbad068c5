// Which view is shown: as the address says.

const VIEWS = {
  overview: ["Overview", overview], timeline: ["Timeline", timeline], layers: ["Layers", layers], pair: ["A | B", pair],
  leads: ["Who leads", leads], tables: ["Tables", tables], figures: ["Figures", figures],
};
const KEPT = [...FILTERS, "at"];  // go along to another view
let turn = 0;

async function render() {
  const mine = ++turn;
  const {view, params} = asked();
  const kept = new URLSearchParams([...params].filter(([name]) => KEPT.includes(name)));
  document.getElementById("views").replaceChildren(...Object.entries(VIEWS).map(([name, [text]]) => el("a", {
    href: address(name, name === view ? params : kept), "aria-current": name === view ? "page" : null}, text)));
  const focused = document.activeElement?.closest("label")?.textContent;
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
  document.documentElement.dataset.ready = view;
  if (focused) [...fresh.querySelectorAll("label")].find(label => label.textContent === focused)?.querySelector("select, input")?.focus();
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
