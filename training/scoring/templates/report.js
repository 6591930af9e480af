"use strict";
// A row: [id, set, speaker, seconds, audio, words, [[tokens, errors, missing] of each system]]; tokens: [kind, said, recognised].
const rows = JSON.parse(document.getElementById("data").textContent).map((row, number) => {
  const [id, set, speaker, seconds, audio, words, systems] = row;
  const texts = systems.flatMap(([tokens]) => tokens.map((token) => token.slice(1).join(" ")));
  const search = [id, speaker, ...texts].join(" ").toLowerCase();
  return { number, id, set, speaker, seconds, audio, words, systems, search };
});
const PAGE = 40;
const find = (id) => document.getElementById(id);
let sorting = { key: "number", down: false };
let limit = PAGE;

const rate = (row, system) =>
  row.words ? row.systems[system][1] / row.words : row.systems[system][1] ? Infinity : 0;

function value(row) {
  return /^\d+$/.test(sorting.key) ? rate(row, Number(sorting.key)) : row[sorting.key];
}

function chosen() {
  const query = find("query").value.trim().toLowerCase();
  const set = find("set").value;
  const which = find("which").value;
  const kept = rows.filter((row) => {
    const errors = row.systems.map((system) => system[1]);
    return (!query || row.search.includes(query)) && (!set || row.set === set) &&
      (which !== "wrong" || errors.some((count) => count > 0)) &&
      (which !== "differ" || errors.some((count) => count !== errors[0]));
  });
  const sign = sorting.down ? -1 : 1;
  return kept.sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    return x === y ? a.number - b.number : sign * (x < y ? -1 : 1);
  });
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function line([tokens, , missing], system, several) {
  const made = element("div", "line");
  if (several) made.append(element("span", `key s${system % 6}`));
  const words = element("span");
  for (const [kind, said, recognised] of tokens) {
    if (kind === "=") words.append(said + " ");
    if (kind === "s" || kind === "d") words.append(element("del", "", said), " ");
    if (kind === "s") words.append(element("ins", "recognised", recognised), " ");
    if (kind === "i") words.append(element("ins", "extra", recognised), " ");
  }
  if (missing) words.append(element("span", "quiet", "no hypothesis"));
  else if (!tokens.length) words.append(element("span", "quiet", "nothing said, nothing recognised"));
  made.append(words);
  return made;
}

function drawn(row) {
  const made = element("tr");
  const first = element("td", "", row.id.split("/").pop());
  first.title = row.id;
  if (row.audio) {
    const player = element("audio");
    player.controls = true;
    player.preload = "none";
    player.src = row.audio;
    first.append(player);
  }
  made.append(first, element("td", "", row.speaker));
  made.append(element("td", "n seconds", row.seconds === null ? "–" : row.seconds.toFixed(1)));
  row.systems.forEach((_, system) => {
    const wer = rate(row, system);
    made.append(element("td", "n wer", Number.isFinite(wer) ? (100 * wer).toFixed(0) : "–"));
  });
  const words = element("td");
  row.systems.forEach((recognised, system) => words.append(line(recognised, system, row.systems.length > 1)));
  made.append(words);
  return made;
}

function show() {
  const kept = chosen();
  find("rows").replaceChildren(...kept.slice(0, limit).map(drawn));
  find("shown").textContent = `${Math.min(limit, kept.length)} of ${kept.length}`;
  find("more").hidden = limit >= kept.length;
}

for (const id of ["query", "set", "which"]) {
  find(id).addEventListener("input", () => { limit = PAGE; show(); });
}
find("more").addEventListener("click", () => { limit += 5 * PAGE; show(); });
for (const heading of document.querySelectorAll("[data-sort]")) {
  heading.addEventListener("click", () => {
    const key = heading.dataset.sort;
    const isNumber = /^\d+$/.test(key) || key === "seconds";
    sorting = { key, down: sorting.key === key ? !sorting.down : isNumber };
    document.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
    show();
  });
}
show();

if (parent !== window) { // a frame as high as the report
  const root = document.documentElement;
  root.classList.add("embedded");
  const tell = () => parent.postMessage({ height: root.getBoundingClientRect().height }, "*");
  new ResizeObserver(tell).observe(root);
}
