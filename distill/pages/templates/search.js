"use strict";
// Search and filter of a page that is a file: what does not fit is hidden. Texts are only ever compared.
const bar = document.getElementById("search");
if (bar) {
  const [text, show, found] = ["input", "select", "output"].map(tag => bar.querySelector(tag));
  const rows = [...document.querySelectorAll("[data-row]")].map(row => ({row, text: row.textContent.toLowerCase()}));
  const fit = () => {
    const wanted = text.value.trim().toLowerCase(), kind = show?.value ?? "";
    let count = 0;
    for (const one of rows) {
      one.row.hidden = !one.text.includes(wanted) || (kind !== "" && !one.row.dataset.row.split(" ").includes(kind));
      if (one.row.hidden) continue;
      count += 1;
      const folded = wanted && one.row.parentElement.closest("details");
      if (folded) folded.open = true;
    }
    for (const group of document.querySelectorAll("[data-group]")) group.hidden = !group.querySelector("[data-row]:not([hidden])");
    found.textContent = wanted || kind ? `${count} of ${rows.length}` : "";
  };
  const step = by => {
    const seen = rows.map(one => one.row).filter(row => !row.hidden);
    const next = seen[Math.min(Math.max(seen.indexOf(document.activeElement) + by, 0), seen.length - 1)];
    if (next) { next.tabIndex = -1; next.focus(); }
  };
  bar.hidden = rows.length === 0;
  text.addEventListener("input", fit);
  show?.addEventListener("change", fit);
  addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === text && event.key === "Escape") { text.value = ""; fit(); text.blur(); return; }
    if (/^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    if (event.key === "/") { text.focus(); event.preventDefault(); }
    if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
  });
}
