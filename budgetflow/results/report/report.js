// What is chosen (by brushes and the filter) and what is picked (one trial) is the same in all
// panels of a study and in its table. Vega draws; this passes the two on.
const page = JSON.parse(document.getElementById("island").textContent);
const tip = document.getElementById("tip");
const fields = (trial) => trial.about.map(([name, value]) => `${name}: ${value}`);

function hideTip() { tip.hidden = true; }

function showTip(event, trial, study) {
  tip.textContent = [`trial ${trial.trial}: ${study.groups[trial.group]}`, ...fields(trial).slice(0, 7)].join("\n");
  tip.style.whiteSpace = "pre-line";
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 4))}px`;
  tip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 18}px`;
}

// Whether a row, or one of the points in the lists that it holds, lies in a brush.
function inside(row, box) {
  const names = Object.keys(box);
  const holds = (field, value) => typeof box[field][0] === "number"
    ? value !== null && value >= Math.min(...box[field]) && value <= Math.max(...box[field])
    : box[field].includes(value);
  const points = Math.max(...names.map((name) => Array.isArray(row[name]) ? row[name].length : 1));
  return Array.from({ length: points }, (_, n) => n).some((n) =>
    names.every((name) => holds(name, Array.isArray(row[name]) ? row[name][n] : row[name])));
}

// What a cell of the table holds, where that is not what it shows.
const exact = (cell) => cell.dataset.value ?? cell.textContent;

// A filter: all words must be in the row; name<1, name>=1 and name=text are about one column.
function asFilter(text) {
  const terms = text.trim().toLowerCase().split(/\s+/).filter(Boolean).map((term) => {
    const [, name, sign, wanted] = term.match(/^([\w.]+)(<=|>=|=|<|>)(.+)$/) ?? [];
    if (!name) return (row) => row.textContent.toLowerCase().includes(term);
    return (row) => {
      const head = row.closest("table").querySelector(`th[data-name="${CSS.escape(name)}"]`);
      if (!head) return false;
      const text = exact(row.cells[head.cellIndex]), value = parseFloat(text);
      if (sign === "=") return text.toLowerCase() === wanted || value === Number(wanted);
      return { "<": value < wanted, "<=": value <= wanted, ">": value > wanted, ">=": value >= wanted }[sign];
    };
  });
  return (row) => terms.every((holds) => holds(row));
}

async function draw(element, spec, sets, act) {
  const used = JSON.stringify(spec);
  const datasets = Object.fromEntries(Object.entries(sets)
    .filter(([name]) => used.includes(`"name":"${name}"`)).map(([name, rows]) => [name, structuredClone(rows)]));
  const full = { height: 210, ...spec, width: "container", autosize: { type: "fit-x", contains: "padding" }, datasets };
  const { view } = await vegaEmbed(element, full, { mode: "vega-lite", renderer: "svg", actions: false, tooltip: false, config: page.config });
  const trial = (item) => item?.datum?.trial;
  view.addEventListener("click", (event, item) => { if (trial(item) != null) act.pick(trial(item)); });
  view.addEventListener("pointermove", (event, item) => trial(item) != null ? act.hover(event, trial(item)) : hideTip());
  view.addEventListener("pointerout", hideTip);
  if (act.brush && used.includes('"interval"')) view.addSignalListener("brush", (_, box) => act.brush(box));
  return view;
}

function explore(section, study) {
  const trials = new Map(study.trials.map((trial) => [trial.trial, trial]));
  const sets = { trials: study.trials, curves: study.curves };
  const rows = [...section.querySelectorAll(".trials tbody tr")];
  const row = new Map(rows.map((each) => [Number(each.dataset.trial), each]));
  const figures = [...section.querySelectorAll("figure[data-panel]")];
  const filter = section.querySelector(".filter"), count = section.querySelector(".count");
  const aside = section.querySelector("aside");
  const brushes = new Map();
  let views = [], picked = null, from = null;

  const chosen = () => {
    const kept = asFilter(filter?.value ?? "");
    return study.trials.map((trial) => trial.trial).filter((n) =>
      [...brushes.values()].every((trialsInside) => trialsInside.has(n)) && (!row.has(n) || kept(row.get(n))));
  };
  function update() {
    const left = chosen(), all = left.length === study.trials.length;
    const keys = all ? null : Object.fromEntries(left.map((n) => [n, true]));
    for (const view of views) view.signal("chosen", keys).signal("picked", picked).runAsync();
    for (const [n, each] of row) {
      each.hidden = keys !== null && !keys[n];
      each.classList.toggle("picked", n === picked);
    }
    if (count) count.textContent = all ? `${study.trials.length} trials` : `${left.length} of ${study.trials.length} trials`;
  }
  async function pick(n) {
    const trial = trials.get(n);
    if (!trial) return;
    if (aside.hidden) from = document.activeElement;
    picked = n;
    update();
    hideTip();
    const list = document.createElement("dl");
    for (const [name, value] of trial.about) {
      list.append(Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value }));
    }
    aside.querySelector("h3").textContent = `Trial ${n} of ${study.name}: ${study.groups[trial.group]}`;
    const plots = aside.querySelector(".plots");
    plots.replaceChildren();
    aside.querySelector("dl").replaceWith(list);
    aside.hidden = false;
    const curve = study.curves.filter((each) => each.trial === n);
    if (!curve.length) return;
    for (const spec of study.of_one_trial) {
      const plot = Object.assign(document.createElement("div"), { className: "plot" });
      plots.append(plot);
      await draw(plot, spec, { curves: curve }, { pick() {}, hover: hideTip });
      if (picked !== n) return;
    }
  }
  function close() {
    aside.hidden = true;
    picked = null;
    update();
    if (from?.isConnected) from.focus();
  }
  // By the arrows: the next of the chosen trials, in the order of the table.
  function step(by) {
    const order = rows.filter((each) => !each.hidden).map((each) => Number(each.dataset.trial));
    if (order.length) pick(order[(order.indexOf(picked) + by + order.length + (picked === null && by < 0)) % order.length]);
  }
  async function drawAll() {
    views.forEach((view) => view.finalize());
    views = [];
    for (const figure of figures) {
      const spec = study.panels[figure.dataset.panel], data = spec.data.values ?? sets[spec.data.name];
      views.push(await draw(figure.querySelector(".plot"), spec, sets, {
        pick,
        hover: (event, n) => trials.has(n) && showTip(event, trials.get(n), study),
        brush: (box) => {
          brushes.delete(figure);
          if (Object.keys(box).length) brushes.set(figure, new Set(data.filter((each) => inside(each, box)).map((each) => each.trial)));
          update();
        },
      }));
      await new Promise((resolve) => setTimeout(resolve)); // the page stays alive meanwhile
    }
    update();
    section.dataset.drawn = views.length;
  }
  filter?.addEventListener("input", update);
  section.querySelector(".clear")?.addEventListener("click", () => { filter.value = ""; brushes.clear(); picked = null; drawAll(); });
  aside?.querySelector("button").addEventListener("click", close);
  // Wherever the focus is: a click on a plot leaves it on the page.
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && aside?.hidden === false) close(); });
  section.addEventListener("keydown", (event) => {
    const on = event.target;
    if (on.matches(".plot[tabindex]") && ["ArrowRight", "ArrowLeft"].includes(event.key)) {
      step(event.key === "ArrowRight" ? 1 : -1);
    } else if (on.matches(".trials tbody tr") && ["ArrowDown", "ArrowUp"].includes(event.key)) {
      const shown = [...on.parentElement.rows].filter((each) => !each.hidden);
      shown[shown.indexOf(on) + (event.key === "ArrowDown" ? 1 : -1)]?.focus();
    } else if (on.matches(".trials tbody tr") && ["Enter", " "].includes(event.key)) {
      pick(Number(on.dataset.trial));
    } else return;
    event.preventDefault();
  });
  for (const each of rows) each.addEventListener("click", () => pick(Number(each.dataset.trial)));
  for (const button of section.querySelectorAll(".trials th button")) {
    button.addEventListener("click", () => {
      const head = button.parentElement, down = head.ariaSort === "ascending", n = head.cellIndex;
      for (const each of head.parentElement.cells) each.ariaSort = each === head ? (down ? "descending" : "ascending") : "none";
      const key = (each) => exact(each.cells[n]);
      const compare = (a, b) => Number(a) - Number(b) || a.localeCompare(b);
      // What has no value goes last, either way.
      rows.sort((a, b) => (key(a) === "-") - (key(b) === "-") || (down ? -1 : 1) * compare(key(a), key(b)));
      rows[0].parentElement.append(...rows);
    });
  }
  return drawAll();
}

for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const text = button.previousElementSibling;
    getSelection().selectAllChildren(text);
    await navigator.clipboard?.writeText(text.textContent).catch(() => {});
    button.textContent = "Copied";
  });
}
(async () => {
  for (const section of document.querySelectorAll("section.study")) {
    await explore(section, page.studies[section.dataset.study]);
  }
  document.documentElement.dataset.ready = "true";
})();
