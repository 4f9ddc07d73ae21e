// Keys of the review page, and where the focus goes after a part of a page was replaced. Pages work without this file.
"use strict";
const typing = (element) => element.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]");
const visible = (element) => element.checkVisibility ? element.checkVisibility() : true;
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector("dialog[open]")) return;
  const target = event.target;
  if (typing(target)) {
    if (event.key === "Escape") target.blur();
    if (event.key === "Enter" && target.name === "note") {
      event.preventDefault();
      target.blur();
    }
    if (event.key === "Enter" && target.matches("[data-picks]")) {
      event.preventDefault();
      document.querySelector(`${target.dataset.picks} :is(button, input)`)?.click();
    }
    return;
  }
  if (event.key === "Enter" && target.closest("button, a, summary, input")) return;
  if (event.key === " " && target.closest("button, a, summary, input")) return;
  const found = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key.split(" ").includes(event.key) && (visible(one) || one.matches("dialog")));
  if (!found) return;
  event.preventDefault();
  if (event.repeat) return;
  if (found.matches("input:not([type=checkbox]), textarea")) found.focus();
  else if (found.matches("summary")) { found.click(); found.parentElement.querySelector("input, button")?.focus(); }
  else if (found.matches("dialog")) found.showModal();
  else found.click();
});
document.addEventListener("click", (event) => {
  const closes = event.target.closest("dialog [data-close]");
  if (closes) closes.closest("dialog").close();
  const opens = event.target.closest("[data-opens]");
  if (opens) document.getElementById(opens.dataset.opens).showModal();
});
// A label that is ticked in the search stays when something else is searched for.
document.addEventListener("change", (event) => {
  const found = event.target.closest("#found .label");
  if (found && event.target.checked) document.querySelector("fieldset.labels")?.append(found);
});
document.addEventListener("htmx:after:swap", () => {
  const focus = document.querySelector("#main [data-focus]");
  if (focus && !typing(document.activeElement)) focus.focus({ preventScroll: true });
});
// A form that is sent twice by an impatient finger would answer the next question as well.
document.addEventListener("htmx:before:request", (event) => {
  const main = document.getElementById("main");
  if (event.target.matches("form[data-once]")) {
    if (main?.getAttribute("aria-busy") === "true") event.preventDefault();
    main?.setAttribute("aria-busy", "true");
  }
});
document.addEventListener("htmx:finally:request", () => document.getElementById("main")?.removeAttribute("aria-busy"));
