// The quarantine desk by pointer and single keys. Everything it does can be done without it, in the
// number fields: it writes into those and into nothing else. Needs controls.js.
"use strict";

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const SIDES = ["x", "y", "w", "h"];

  for (const hint of document.querySelectorAll("[data-with-script]")) hint.hidden = false;

  function field(name, part) {
    return document.getElementsByName(`${name}.${part}`)[0];
  }

  class Sheet {
    constructor(svg) {
      this.svg = svg;
      this.columns = svg.viewBox.baseVal.width;
      this.rows = svg.viewBox.baseVal.height;
      this.section = svg.closest("section");
      this.marks = svg.querySelector("g");
      svg.setAttribute("role", "group");
      this.names = [...this.section.querySelectorAll("tr[data-box]")].map((line) => line.dataset.box);
      for (const name of this.names) this.follow(name);
      svg.addEventListener("pointerdown", (event) => this.begin(event));
      this.addZoom();
      this.byTouch = this.section.querySelector("[data-by-touch]");
      this.byTouch.closest("p").hidden = !matchMedia("(any-pointer: coarse)").matches;
      this.byTouch.addEventListener("change", () => this.svg.classList.toggle("by-touch", this.byTouch.checked));
    }

    // The middle of what is seen stays where it is.
    addZoom() {
      const pane = this.svg.parentElement;
      const title = `Zoom of image ${this.svg.dataset.image}`;
      const zoom = zoomer(title, (value) => {
        const across = (pane.scrollLeft + pane.clientWidth / 2) / pane.scrollWidth;
        const down = (pane.scrollTop + pane.clientHeight / 2) / pane.scrollHeight;
        pane.style.setProperty("--zoom", value);
        pane.scrollLeft = across * pane.scrollWidth - pane.clientWidth / 2;
        pane.scrollTop = down * pane.scrollHeight - pane.clientHeight / 2;
      });
      pane.before(element("div", "tools", zoom));
      pane.tabIndex = 0;
      pane.setAttribute("role", "group");
      pane.setAttribute("aria-label", `Image ${this.svg.dataset.image}; arrow keys move it when it is zoomed`);
    }

    follow(name) {
      for (const part of [...SIDES, "do"]) {
        field(name, part).addEventListener("input", () => this.settle(name));
      }
      this.settle(name);
    }

    settleAll() {
      for (const name of this.names) this.settle(name);
      const drawn = this.section.querySelector("details");
      if ([...drawn.querySelectorAll("select")].some((select) => select.value !== "leave")) drawn.open = true;
    }

    // What is left alone stands where it was found, and does not move from there.
    settle(name) {
      const kept = this.keeps(name);
      for (const side of SIDES.map((part) => field(name, part))) {
        side.readOnly = kept;
        if (kept) side.value = side.defaultValue;
      }
      this.draw(name);
    }

    keeps(name) {
      return field(name, "do").value === "keep";
    }

    values(name) {
      return SIDES.map((part) => field(name, part).valueAsNumber);
    }

    shape(name) {
      return this.svg.querySelector(`rect[data-for="${name}"]`);
    }

    draw(name) {
      const [x, y, width, height] = this.values(name);
      let rect = this.shape(name);
      let label = this.svg.querySelector(`text[data-for="${name}"]`);
      if ([x, y, width, height].some(Number.isNaN)) {
        // No box that the numbers do not tell.
        if (rect) rect.remove();
        if (label) label.remove();
        return;
      }
      if (!rect) {
        rect = document.createElementNS(SVG, "rect");
        label = document.createElementNS(SVG, "text");
        label.textContent = name.split(".")[1];
        rect.dataset.for = label.dataset.for = name;
        this.marks.append(rect, label);
      }
      const choice = field(name, "do").value;
      rect.setAttribute("class", choice);
      rect.setAttribute("tabindex", "0");
      rect.setAttribute("role", "button");
      rect.setAttribute("aria-describedby", `hint-${this.svg.dataset.image}`);
      rect.setAttribute("aria-keyshortcuts", "E L Delete");
      rect.setAttribute("aria-label", `Box ${name.split(".")[1]}, ${field(name, "do").selectedOptions[0].text}, left ${x}, top ${y}, width ${width}, height ${height}`);
      if (!rect.dataset.live) {
        rect.dataset.live = "yes";
        rect.addEventListener("keydown", (event) => this.press(event, name));
        rect.addEventListener("focus", () => this.mark(name, true));
        rect.addEventListener("blur", () => this.mark(name, false));
      }
      for (const [side, value] of [["x", x], ["y", y], ["width", width], ["height", height]]) {
        rect.setAttribute(side, value);
      }
      label.setAttribute("x", x);
      label.setAttribute("y", Math.max(y, Number(this.marks.getAttribute("font-size"))));
    }

    mark(name, on) {
      field(name, "do").closest("tr").classList.toggle("current", on);
    }

    put(name, x, y, width, height) {
      if (this.keeps(name)) return;
      const w = Math.round(Math.max(1, Math.min(width, this.columns)));
      const h = Math.round(Math.max(1, Math.min(height, this.rows)));
      const left = Math.round(Math.max(0, Math.min(x, this.columns - w)));
      const top = Math.round(Math.max(0, Math.min(y, this.rows - h)));
      SIDES.forEach((part, at) => { field(name, part).value = [left, top, w, h][at]; });
      this.draw(name);
    }

    choose(name, choice) {
      const select = field(name, "do");
      if ([...select.options].some((option) => option.value === choice)) select.value = choice;
      this.settle(name);
    }

    goToChoice(name) {
      const select = field(name, "do");
      const folded = select.closest("details");
      if (folded) folded.open = true;
      select.focus();
    }

    press(event, name) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const [x, y, width, height] = this.values(name);
      const step = Math.max(1, Math.round(this.columns / 200));
      const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
      const move = moves[event.key];
      const choice = { e: "erase", l: "keep", Delete: "leave" }[event.key];
      if (move && event.shiftKey) this.put(name, x, y, width + move[0], height + move[1]);
      else if (move) {
        // A box that only moves keeps its size at the edges.
        this.put(name, x + move[0], y + move[1], width, height);
      } else if (choice) this.choose(name, choice);
      else if (event.key === "Enter" || event.key === " ") this.goToChoice(name);
      else return;
      event.preventDefault();
      event.stopPropagation();
    }

    place(event) {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
      return [Math.max(0, Math.min(point.x, this.columns)), Math.max(0, Math.min(point.y, this.rows))];
    }

    free() {
      for (const line of this.section.querySelectorAll("details tr[data-box]")) {
        if (field(line.dataset.box, "do").value === "leave") return line.dataset.box;
      }
      return null;
    }

    // A finger or pen scrolls the page over an image, until it is said that it draws.
    draws(event) {
      return event.pointerType === "mouse" || this.byTouch.checked;
    }

    begin(event) {
      if (event.button !== 0 || !event.isPrimary || !this.draws(event)) return;
      const [fromX, fromY] = this.place(event);
      const rect = event.target.closest("rect");
      let name = rect ? rect.dataset.for : this.free();
      if (!name) return;
      event.preventDefault();
      let [x, y, width, height] = rect ? this.values(name) : [fromX, fromY, 0, 0];
      const reach = Math.max(6, this.columns / 100);
      const sizes = !rect || (x + width - fromX < reach && y + height - fromY < reach);
      const before = [...SIDES, "do"].map((part) => field(name, part).value);
      let moved = false;
      const drag = (next) => {
        if (next.pointerId !== event.pointerId) return;
        const [toX, toY] = this.place(next);
        if (!moved && Math.hypot(toX - fromX, toY - fromY) < this.columns / 300) return;
        if (!moved && !rect) {
          this.section.querySelector("details").open = true;
          this.choose(name, "erase");
        }
        moved = true;
        if (!rect) this.put(name, Math.min(fromX, toX), Math.min(fromY, toY), Math.abs(toX - fromX), Math.abs(toY - fromY));
        else if (sizes) this.put(name, x, y, toX - x, toY - y);
        else this.put(name, x + toX - fromX, y + toY - fromY, width, height);
      };
      const end = (last) => {
        if (last.pointerId !== event.pointerId) return;
        if (last.type === "pointercancel") {
          [...SIDES, "do"].forEach((part, at) => { field(name, part).value = before[at]; });
          this.settle(name);
        }
        window.removeEventListener("pointermove", drag);
        window.removeEventListener("pointerup", end);
        window.removeEventListener("pointercancel", end);
        const shape = this.shape(name);
        if (shape) shape.focus({ preventScroll: true });
      };
      window.addEventListener("pointermove", drag);
      window.addEventListener("pointerup", end);
      window.addEventListener("pointercancel", end);
    }
  }

  const sheets = [...document.querySelectorAll("svg.whole")].map((svg) => new Sheet(svg));
  // After "Back" a browser fills the fields in as they were left: the boxes follow them.
  window.addEventListener("pageshow", () => sheets.forEach((sheet) => sheet.settleAll()));

  // What was decided here and not sent would be lost by a key or a link: the browser asks first.
  const form = document.querySelector("form.desk");
  let sending = false;
  document.addEventListener("submit", (event) => {
    sending = (event.submitter?.formMethod || event.target.method) === "post";
  });
  window.addEventListener("pageshow", () => { sending = false; });
  window.addEventListener("beforeunload", (event) => {
    if (!sending && form && [...form.elements].some(changed)) event.preventDefault();
  });

  function changed(control) {
    if (control.type === "checkbox" || control.type === "radio") return control.checked !== control.defaultChecked;
    if (control.tagName === "SELECT") return [...control.options].some((option) => option.selected !== option.defaultSelected);
    return control.name !== "" && control.value !== control.defaultValue;
  }

  const switched = document.querySelector("[data-keys]");
  const KEPT = "prichexy-desk-keys";
  try {
    switched.checked = localStorage.getItem(KEPT) !== "off";
    switched.addEventListener("change", () => localStorage.setItem(KEPT, switched.checked ? "on" : "off"));
  } catch {
    // A browser that keeps nothing: the keys are on.
  }
  document.addEventListener("keydown", (event) => {
    const busy = event.target.closest("input, select, textarea");
    if (!switched.checked || busy || event.ctrlKey || event.metaKey || event.altKey) return;
    const link = document.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
    if (!link) return;
    event.preventDefault();
    const to = document.getElementById(link.dataset.to || "");
    if (to) {
      to.scrollIntoView({ block: "center" });
      to.focus();
    } else if (!link.dataset.to) link.click();
  });
})();
