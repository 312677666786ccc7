// Keeps what changes by itself on a page as it is now: asks for the same page again and puts the
// marked parts of it in the place of those that stand there. Nothing is touched that somebody is
// at: not under the pointer, with the focus or the selection in it, and no form is marked; "As of"
// moves on only when all other parts did. What is there now and then stands in a part that is empty
// otherwise. A page that gets no answer says so. Without this script it has its link "Refresh".
"use strict";

(() => {
  const PAUSE = 10_000; // milliseconds
  const QUICK = 5_000; // while there is a progress bar
  const LONGEST = 160_000; // between two tries when the gateway does not answer
  const SILENT = 2; // failures one after the other
  const OFF = "prichexy-live-off";
  const PART = "[data-live]";

  const MOMENT = "moment";
  // As the server sent them: a fold that somebody opened is no other part.
  const sent = new Map(all(document).map((part) => [part.dataset.live, part.outerHTML]));
  let answered = named(document, MOMENT)?.dataset.at;
  let failures = 0;
  let timer = 0;
  let off = false;
  let ended = false;
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

  function all(within) {
    return [...within.querySelectorAll(PART)];
  }

  function named(page, name) {
    return page.querySelector(`[data-live="${name}"]`);
  }

  // A part that has others in it is replaced only where it has others now: else they are.
  function holdsTheSame(part, now) {
    const names = [part, now].map((one) => all(one).map((inner) => inner.dataset.live).join(" "));
    return names[0] !== "" && names[0] === names[1];
  }

  // Tells whether the part stands as it is in the fresh page.
  function replacePart(part, fresh) {
    const name = part.dataset.live;
    const now = named(fresh, name);
    if (!now || !part.isConnected || holdsTheSame(part, now)) return true;
    if (now.outerHTML === sent.get(name)) return true;
    if (isDisturbed(part)) return false;
    for (const one of [now, ...all(now)]) sent.set(one.dataset.live, one.outerHTML);
    part.replaceWith(document.importNode(now, true));
    return true;
  }

  function replaceParts(fresh) {
    const parts = all(document).filter((part) => part.dataset.live !== MOMENT);
    const stand = parts.map((part) => replacePart(part, fresh));
    const moment = named(document, MOMENT);
    if (moment && stand.every(Boolean)) replacePart(moment, fresh);
    addFiles(fresh);
  }

  // What came brings its style and its scripts.
  function addFiles(fresh) {
    const known = (attribute, address) => document.head.querySelector(`[${attribute}="${address}"]`);
    for (const link of fresh.head.querySelectorAll('link[rel="stylesheet"]')) {
      if (!known("href", link.getAttribute("href"))) document.head.append(document.importNode(link));
    }
    for (const file of fresh.head.querySelectorAll("script[src]")) {
      const address = file.getAttribute("src");
      if (known("src", address)) continue;
      const script = document.createElement("script");
      script.src = address;
      script.async = false;
      document.head.append(script);
    }
  }

  function tellOfSilence() {
    const main = document.querySelector("main");
    const told = main.querySelector("[data-silence]");
    main.classList.toggle("old", failures >= SILENT);
    if (failures < SILENT) told?.remove();
    else if (!told) {
      const alert = document.createElement("p");
      alert.className = "banner bad";
      alert.dataset.silence = "";
      alert.setAttribute("role", "alert");
      alert.textContent = `No answer since ${answered}. What stands here is old; it is asked for on and on.`;
      main.prepend(alert);
    }
  }

  async function ask() {
    const answer = await fetch(location.href, { cache: "no-store", redirect: "error" });
    if (!answer.ok) throw new Error("no page");
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  // What somebody was at is to follow when it is left alone.
  function isAsIn(fresh) {
    return named(document, MOMENT)?.dataset.at === named(fresh, MOMENT)?.dataset.at;
  }

  async function refresh() {
    if (off || ended || document.hidden) return;
    try {
      const fresh = await ask();
      failures = 0;
      answered = named(fresh, MOMENT)?.dataset.at;
      tellOfSilence();
      if (off) return;
      replaceParts(fresh);
      // A page that no longer changes by itself has no such script.
      if (!fresh.querySelector("script[data-refreshes]") && isAsIn(fresh)) {
        ended = true;
        document.querySelector("button.live")?.remove();
        return;
      }
    } catch {
      failures += 1;
      tellOfSilence();
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
      if (off) {
        failures = 0;
        tellOfSilence();
      }
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
