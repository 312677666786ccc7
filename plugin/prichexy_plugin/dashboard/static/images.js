// Adds to images that stand side by side: one zoom for all of them, which scroll together, and
// original and anonymised in one place with a line between them that can be moved. Without this
// script the pictures stand beside each other, and each opens large by its link. Needs controls.js.
"use strict";

// Panes of different sizes show the same part of the image.
function scrollTogether(panes) {
  let leader = null;
  let free = 0;
  for (const pane of panes) {
    pane.addEventListener("scroll", () => {
      if (leader !== null && leader !== pane) return;
      leader = pane;
      clearTimeout(free);
      free = setTimeout(() => { leader = null; }, 120);
      const across = pane.scrollLeft / Math.max(1, pane.scrollWidth - pane.clientWidth);
      const down = pane.scrollTop / Math.max(1, pane.scrollHeight - pane.clientHeight);
      for (const other of panes) {
        if (other === pane) continue;
        other.scrollLeft = across * (other.scrollWidth - other.clientWidth);
        other.scrollTop = down * (other.scrollHeight - other.clientHeight);
      }
    }, { passive: true });
  }
}

function compared(box) {
  const [before, after] = ["original", "anonymised"].map((part) => box.querySelector(`.${part} img`));
  const under = before.cloneNode();
  const over = after.cloneNode();
  over.className = "over";
  const layers = element("div", "layers", under, over, element("div", "line"));
  const pane = element("div", "pane", layers);
  const caption = element("figcaption", "", element("b", "", "Original, then anonymised"));
  const cut = range(
    "Line between them",
    { min: 0, max: 100, step: 1, value: 50, told: (value) => `${value} % original` },
    (value) => layers.style.setProperty("--cut", `${value}%`),
  );
  return element("figure", "compare", caption, pane, element("div", "tools", cut));
}

function enhance(box) {
  const together = compared(box);
  const zoom = zoomer("Zoom", (value) => box.style.setProperty("--zoom", value));
  box.before(element("div", "tools", zoom));
  box.prepend(together);
  const panes = [...box.querySelectorAll(".pane")];
  for (const pane of panes) {
    const title = pane.parentElement.querySelector("figcaption b").textContent;
    pane.tabIndex = 0;
    pane.setAttribute("role", "group");
    pane.setAttribute("aria-label", `${title}, image ${box.dataset.image}; arrow keys move it when it is zoomed`);
  }
  scrollTogether(panes);
}

// Not before somebody opens it: no picture is asked for that nobody looks at.
for (const image of document.querySelectorAll("details.image")) {
  const box = image.querySelector(".side-by-side");
  if (image.open) enhance(box);
  else image.addEventListener("toggle", () => enhance(box), { once: true });
}
