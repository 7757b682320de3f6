// SPDX-License-Identifier: Apache-2.0
// What a page can do with JavaScript and does without: copy texts, fold and unfold all, unfold before it is printed.
"use strict";
(() => {
  const all = (selector) => document.querySelectorAll(selector);
  const said = document.getElementById("said");

  // A page that was opened from a file or over plain http may have no clipboard of the newer kind.
  const copyByCommand = (text) => {
    const area = document.createElement("textarea");
    area.className = "unseen";
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copyByCommand(text);
    }
  };
  const select = (element) => {
    for (let outer = element.closest("details"); outer; outer = outer.parentElement.closest("details")) outer.open = true;
    const range = document.createRange();
    range.selectNodeContents(element);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  };
  for (const button of all("button[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      const done = await copy(source.textContent.trimEnd());
      button.focus();
      if (!done) select(source);
      button.textContent = done ? "Copied" : "Selected";
      said.textContent = `${button.getAttribute("aria-label")}: ${done ? "copied" : "selected, copy it with Ctrl+C"}`;
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }

  for (const button of all("button[data-fold]")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const open = button.dataset.fold === "open";
      // Not the hundreds of frames between the first and the last, nor what only repeats a table as text.
      for (const each of all(open ? "details:not(.text, .chunk)" : "details")) each.open = open;
      said.textContent = open ? "Unfolded" : "Folded";
    });
  }

  const printed = [];
  addEventListener("beforeprint", () => {
    for (const each of all("details:not(.text, .chunk, [open])")) {
      each.open = true;
      printed.push(each);
    }
  });
  addEventListener("afterprint", () => {
    for (const each of printed.splice(0)) each.open = false;
  });
})();
