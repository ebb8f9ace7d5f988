"use strict";
// What the page is without: folded parts open for print, and tooltips that keyboards and touch reach too.
const details = () => [...document.querySelectorAll("details")];
let folded = [];
addEventListener("beforeprint", () => {
  folded = details().filter(part => !part.open);
  folded.forEach(part => { part.open = true; });
});
addEventListener("afterprint", () => folded.forEach(part => { part.open = false; }));

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.localName === "details") part.open = true;
  if (target && target.closest("details")) target.scrollIntoView();
}
addEventListener("hashchange", reveal);
reveal();

// --- tooltips -------------------------------------------------------------------------------------------------
const NEAR = 16; // pixels
const tip = document.getElementById("tip");
let shown = null;

function hide() {
  if (shown) shown.classList.remove("shown");
  shown = null;
  tip.textContent = "";
}

function show(mark, x, y) {
  if (mark !== shown) hide();
  shown = mark;
  mark.classList.add("shown");
  tip.textContent = mark.note;
  const width = document.documentElement.clientWidth;
  tip.style.left = `${Math.max(4, Math.min(x + 12, width - tip.offsetWidth - 4))}px`;
  tip.style.top = `${y - tip.offsetHeight - 12 < 4 ? y + 16 : y - tip.offsetHeight - 12}px`;
}

function middle(mark) {
  const box = mark.getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
}

function findMark(marks, event) {
  let nearest = null, least = NEAR;
  for (const mark of marks) {
    if (mark.localName !== "use") continue;
    const [x, y] = middle(mark);
    const distance = Math.hypot(event.clientX - x, event.clientY - y);
    if (distance < least) [nearest, least] = [mark, distance];
  }
  return nearest || event.target.closest(".mark");
}

for (const figure of document.querySelectorAll("svg.figure")) {
  const marks = [...figure.querySelectorAll(".mark")];
  if (!marks.length) continue;
  for (const mark of marks) {
    const title = mark.querySelector(":scope > title");
    mark.note = title.textContent;
    title.remove(); // else the browser shows it too
  }
  const point = event => {
    const mark = findMark(marks, event);
    if (mark) show(mark, event.clientX, event.clientY);
    else hide();
  };
  figure.addEventListener("pointermove", point);
  figure.addEventListener("pointerdown", point);
  figure.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") hide(); });
  figure.addEventListener("blur", hide);
  figure.addEventListener("keydown", event => {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.key === "Escape") hide();
    if (!(event.key in steps)) return;
    event.preventDefault();
    const at = marks.indexOf(shown), step = steps[event.key];
    const mark = marks[at < 0 ? (step > 0 ? 0 : marks.length - 1) : (at + step + marks.length) % marks.length];
    show(mark, ...middle(mark));
  });
}
addEventListener("scroll", hide, { passive: true });

// --- tables in the order of a column --------------------------------------------------------------------------
function sort(heading) {
  const ascending = heading.ariaSort !== "ascending";
  const body = heading.closest("table").tBodies[0], place = heading.cellIndex;
  const read = row => Number.parseFloat(row.cells[place].textContent.replace("−", "-").replace("<", ""));
  const compare = (first, second) => {
    const [a, b] = [read(first), read(second)];
    if (Number.isNaN(a) && Number.isNaN(b)) {
      const order = first.cells[place].textContent.localeCompare(second.cells[place].textContent);
      return ascending ? order : -order;
    }
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // no figure: last
    return ascending ? a - b : b - a;
  };
  body.append(...[...body.rows].sort(compare));
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.ariaSort = ascending ? "ascending" : "descending";
}
for (const heading of document.querySelectorAll("table.sortable thead th")) {
  const button = document.createElement("button");
  button.append(...heading.childNodes);
  button.title = "Sort by this column";
  button.addEventListener("click", () => sort(heading));
  heading.append(button);
}

// --- where the reader is --------------------------------------------------------------------------------------
const links = new Map([...document.querySelectorAll(".side a")].map(link => [link.hash.slice(1), link]));
const sections = [...links.keys()].map(id => document.getElementById(id));
const seen = new IntersectionObserver(() => {
  const passed = sections.filter(section => section.getBoundingClientRect().top < innerHeight / 3);
  for (const link of links.values()) link.removeAttribute("aria-current");
  if (passed.length) links.get(passed.at(-1).id).setAttribute("aria-current", "true");
}, { rootMargin: "0px 0px -66% 0px" });
sections.forEach(section => seen.observe(section));
