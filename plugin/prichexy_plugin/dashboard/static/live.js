// Keeps what changes by itself on a page as it is now: asks for the same page again and puts the
// marked parts of it in the place of those that stand there. Nothing is touched that somebody is
// at: not under the pointer, with the focus or the selection in it, and no form is marked. Without
// this script the page has its link "Refresh".
"use strict";

(() => {
  const PAUSE = 10_000; // milliseconds
  const QUICK = 5_000; // while there is a progress bar
  const LONGEST = 160_000; // between two tries when the gateway does not answer
  const OFF = "prichexy-live-off";
  const PART = "[data-live]";

  let failures = 0;
  let timer = 0;
  let off = false;
  try {
    off = localStorage.getItem(OFF) === "1";
  } catch {
    // A browser that keeps nothing: then the choice holds for this page.
  }

  function isDisturbed(part) {
    const selection = getSelection();
    const selected = selection && !selection.isCollapsed && selection.containsNode(part, true);
    return part.contains(document.activeElement) || part.matches(":hover") || selected;
  }

  function replaceParts(fresh) {
    for (const part of document.querySelectorAll(PART)) {
      const now = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
      if (now && now.outerHTML !== part.outerHTML && !isDisturbed(part)) {
        part.replaceWith(document.importNode(now, true));
      }
    }
  }

  async function ask() {
    const answer = await fetch(location.href, { cache: "no-store", redirect: "error" });
    if (!answer.ok) throw new Error("no page");
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  async function refresh() {
    if (off || document.hidden) return;
    try {
      const fresh = await ask();
      failures = 0;
      if (off) return;
      replaceParts(fresh);
      // A page that no longer changes by itself has no such script.
      if (!fresh.querySelector("script[data-refreshes]")) return;
    } catch {
      failures += 1;
    }
    wait();
  }

  function wait() {
    clearTimeout(timer);
    const usual = document.querySelector(`${PART} progress`) ? QUICK : PAUSE;
    timer = setTimeout(refresh, Math.min(LONGEST, usual * 2 ** failures));
  }

  function addSwitch() {
    const place = document.querySelector(".title");
    if (!place) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "live";
    const tell = () => { button.textContent = off ? "Update by itself" : "Stop updating"; };
    button.addEventListener("click", () => {
      off = !off;
      try {
        localStorage.setItem(OFF, off ? "1" : "0");
      } catch {
        // As above.
      }
      tell();
      if (!off) refresh();
    });
    tell();
    place.append(button);
  }

  document.addEventListener("visibilitychange", () => { if (!document.hidden) wait(); });
  addSwitch();
  if (!off) wait();
})();
