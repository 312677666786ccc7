// Of what the scripts of the pages with images make their controls.
"use strict";

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

// Gives a slider with its title; ``change`` is told of its value now and whenever it is moved.
function range(title, { min, max, step, value, told }, change) {
  const input = element("input");
  Object.assign(input, { type: "range", min, max, step });
  input.value = value;
  const tell = () => {
    input.setAttribute("aria-valuetext", told(input.value));
    change(Number(input.value));
  };
  input.addEventListener("input", tell);
  tell();
  return element("label", "", title, input);
}

// Gives the slider that makes what a pane shows larger.
function zoomer(title, change) {
  const told = (value) => `${value} times`;
  return range(title, { min: 1, max: 6, step: 0.5, value: 1, told }, change);
}
