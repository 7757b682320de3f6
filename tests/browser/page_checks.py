# SPDX-License-Identifier: Apache-2.0
"""What is asked of every page, in JavaScript: contrast, width, headings, references."""

from __future__ import annotations

CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgba = (color) => {
  canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const linear = (value) => value <= 10.31 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4;
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
const ground = (element) => {
  for (; element; element = element.parentElement) {
    const color = rgba(getComputedStyle(element).backgroundColor);
    if (color[3] === 255) return color;
  }
  return rgba("white");
};
const found = new Map();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = walker.nextNode());) {
  const element = node.parentElement;
  if (!node.data.trim() || element.closest("script, style") || !element.checkVisibility()) continue;
  const style = getComputedStyle(element);
  const pair = [luminance(rgba(element.closest("svg") ? style.fill : style.color)), luminance(ground(element))];
  const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  if (ratio < 4.5) found.set(`${element.tagName} ${element.className.baseVal ?? element.className}`, ratio.toFixed(2));
}
return [...found.entries()];
"""
"""Returns the kinds of elements whose text has a lower contrast than WCAG's level AA asks for (4.5 : 1)."""

HEADINGS = "return [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map((each) => Number(each.tagName[1]))"
WIDER = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
LOST_REFERENCES = """
const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
const twice = ids.filter((id, at) => ids.indexOf(id) !== at);
const named = (each, name) => each.getAttribute(name) ?? "";
const lost = [...document.querySelectorAll("a, [data-copy], [aria-labelledby]")].flatMap((each) => [
  named(each, "href").replace(/^#/, ""), named(each, "data-copy"), named(each, "aria-labelledby"),
]).filter((id) => id && !document.getElementById(id));
return [...twice, ...lost];
"""
"""Returns ids that two elements have, and ids that are named and that no element has."""

FOLDED = "return [...document.querySelectorAll('details:not(.text, .chunk)')].filter((each) => !each.open).length"
UNSEEN_TEXT = """
return [...document.querySelectorAll("pre, td, th, dd, h2, h3, h4, li")].filter((each) =>
  each.textContent.trim() && !each.closest(".text, .chunk, thead, caption")
  && !each.checkVisibility({ contentVisibilityAuto: false, visibilityProperty: true })).length
"""
"""Returns how many elements with text cannot be seen, besides those that repeat others."""
