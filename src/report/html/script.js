"use strict";
// All of the page can be read without this; it only filters and folds.
const tools = document.getElementById("tools");
if (tools) {
  const resources = [...document.querySelectorAll(".resource")];
  const search = document.getElementById("search");
  const kinds = [...tools.querySelectorAll("[data-verdict]")];
  const count = document.getElementById("shown");
  const show = () => {
    const off = new Set(kinds.filter((it) => it.getAttribute("aria-pressed") === "false").map((it) => it.dataset.verdict));
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const resource of resources) {
      const text = resource.textContent.toLowerCase();
      resource.hidden = off.has(resource.dataset.verdict) || !words.every((word) => text.includes(word));
    }
    const shown = resources.filter((resource) => !resource.hidden).length;
    count.textContent = shown === resources.length ? "" : `${shown} of ${resources.length} are shown.`;
  };
  for (const kind of kinds) {
    kind.addEventListener("click", () => {
      kind.setAttribute("aria-pressed", String(kind.getAttribute("aria-pressed") === "false"));
      show();
    });
  }
  search.addEventListener("input", show);
  document.getElementById("unfold").addEventListener("click", () => resources.forEach((it) => (it.open = true)));
  document.getElementById("fold").addEventListener("click", () => resources.forEach((it) => (it.open = false)));
  tools.hidden = false;
}
