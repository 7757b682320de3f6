// SPDX-License-Identifier: Apache-2.0
// Lists the groups and the dumps: filters, sorts, unfolds. Everything is set as text, nothing as HTML.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const PAGE = 200;
  const SVG = "http://www.w3.org/2000/svg";
  const [PATH, OUTCOME, REASON, SYSTEM, TIME, CRASHES, WARNINGS, TEXTS, MISSING, LINKS] = Array(10).keys();

  const make = (name, text, className) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const row = (cells) => {
    const made = make("tr");
    for (const cell of cells) {
      const td = make("td");
      td.append(...[cell].flat().map((part) => (typeof part === "number" ? part.toLocaleString("en") : part)));
      made.append(td);
    }
    return made;
  };
  const name = (text) => make("bdi", text);
  const few = (words) => (words.length > 3 ? `${words.slice(0, 3).join(", ")} and ${words.length - 3} more` : words.join(", "));

  // One bar for each of up to 24 equal spans of time, the same spans in all groups.
  const DAY = 86400000;
  const days = data.groups.flatMap((group) => group.days.map(([day]) => Date.parse(day)));
  const begin = days.reduce((least, day) => Math.min(least, day), Infinity);
  const span = Math.max(DAY, Math.ceil((days.reduce((most, day) => Math.max(most, day), begin) - begin + DAY) / 24 / DAY) * DAY);
  const spark = (group) => {
    const counts = Array(24).fill(0);
    for (const [day, count] of group.days) counts[Math.floor((Date.parse(day) - begin) / span)] += count;
    const most = Math.max(...counts, 1);
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("class", "spark");
    svg.setAttribute("viewBox", "0 0 120 24");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", group.first ? `${group.crashes} from ${group.first} to ${group.last}` : "no time is known");
    counts.forEach((count, index) => {
      if (!count) return;
      const height = Math.max(2, (24 * count) / most);
      const bar = document.createElementNS(SVG, "rect");
      for (const [key, value] of Object.entries({ x: index * 5, y: 24 - height, width: 4, height })) bar.setAttribute(key, value);
      svg.append(bar);
    });
    return svg;
  };

  const stackOf = (group, index) => {
    const made = make("pre", group.stacks[index].join("\n"));
    made.tabIndex = 0;
    return made;
  };
  const opened = (group) => {
    const cell = make("td");
    cell.colSpan = 9;
    cell.append(make("p", group.verdicts.join("; ")));
    if (group.machines) cell.append(make("p", `On ${few(group.machine_names)}`));
    group.stacks.forEach((_, index) => {
      cell.append(make("h3", group.stacks.length > 1 ? `Stack ${index + 1}` : "Stack"), stackOf(group, index));
    });
    const table = make("table", undefined, "list");
    const head = make("thead");
    const titles = make("tr");
    for (const title of ["Dump", "Process", "PID", "Thread", "State", "Stack"]) {
      const th = make("th", title);
      th.scope = "col";
      titles.append(th);
    }
    head.append(titles);
    const body = make("tbody");
    for (const [index, process, pid, tid, verdict, what, stack] of group.listed) {
      const dump = data.dumps[index];
      body.append(row([[name(dump[PATH]), ...links(dump)], name(process), String(pid), String(tid), name(what ? `${verdict}: ${what}` : verdict), stack < 0 ? "another" : String(stack + 1)]));
    }
    table.append(head, body);
    cell.append(table);
    if (group.listed.length < group.crashes) {
      cell.append(make("p", `${(group.crashes - group.listed.length).toLocaleString("en")} more are in crashes.parquet.`, "quiet"));
    }
    const made = make("tr", undefined, "opened");
    made.append(cell);
    return made;
  };
  const links = (dump) => dump[LINKS].flatMap(([label, address]) => {
    const link = make("a", label);
    link.href = address;
    return [" ", link];
  });
  const groupRow = (group) => {
    const button = make("button", undefined, "open");
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    button.append(name(group.signature || "no signature"));
    const title = [button];
    if (group.what) title.push(make("br"), make("bdi", group.what, "what"));
    const made = row([title, group.crashes, group.dumps, group.machines || "", name(few(group.systems)), name(few(group.versions)), group.first, group.last, spark(group)]);
    button.addEventListener("click", () => {
      const isOpen = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!isOpen));
      if (isOpen) made.nextSibling.remove();
      else made.after(opened(group));
    });
    return made;
  };

  // The text in which a filter looks, made once.
  for (const group of data.groups) {
    const dumps = group.listed.map(([index]) => data.dumps[index][PATH]);
    group.text = [group.signature, group.digest, group.what, ...group.processes, ...group.machine_names, ...group.systems, ...group.versions, ...group.verdicts, ...dumps].join("\n").toLowerCase();
  }
  const list = (table, button, said, rowOf) => {
    const body = table.tBodies[0];
    let items = [];
    let shown = 0;
    const more = () => {
      const next = items.slice(shown, shown + PAGE);
      body.append(...next.map(rowOf));
      shown += next.length;
      button.hidden = shown >= items.length;
    };
    button.addEventListener("click", more);
    return (found, words) => {
      items = found;
      shown = 0;
      body.replaceChildren();
      more();
      said.textContent = words;
    };
  };
  const showGroups = list(byId("groups"), byId("more-groups"), byId("matching"), groupRow);
  const showDumps = list(byId("dumps"), byId("more-dumps"), byId("dumps-matching"), (dump) => {
    const state = [dump[REASON] ? name(`${dump[OUTCOME]}: ${dump[REASON]}`) : dump[OUTCOME]];
    if (dump[MISSING]) state.push(make("br"), make("span", `${dump[MISSING].toLocaleString("en")} pages missing`, "badge"));
    const warnings = [dump[WARNINGS]];
    if (dump[TEXTS].length) {
      const details = make("details");
      details.append(make("summary", dump[WARNINGS].toLocaleString("en")), ...dump[TEXTS].map((text) => { const p = make("p"); p.append(name(text)); return p; }));
      warnings[0] = details;
    }
    return row([[name(dump[PATH]), ...links(dump)], state, name(dump[SYSTEM]), dump[TIME].slice(0, 16).replace("T", " "), dump[CRASHES], warnings]);
  });

  let order = { by: "crashes", sign: -1 };
  const update = () => {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = data.groups.filter((group) => words.every((word) => group.text.includes(word)));
    const { by, sign } = order;
    found.sort((a, b) => sign * (a[by] < b[by] ? -1 : a[by] > b[by] ? 1 : 0));
    const crashes = found.reduce((sum, group) => sum + group.crashes, 0);
    showGroups(found, `${found.length.toLocaleString("en")} signatures, ${crashes.toLocaleString("en")} threads`);
  };
  const updateDumps = () => {
    const only = byId("not-whole").checked;
    const found = data.dumps.filter((dump) => !only || dump[OUTCOME] !== "examined" || dump[WARNINGS] || dump[MISSING]);
    const left = data.dumps_in_all - data.dumps.length;
    showDumps(found, `${found.length.toLocaleString("en")} dumps${left ? `, ${left.toLocaleString("en")} more are in dumps.parquet` : ""}`);
  };
  byId("filter").addEventListener("input", update);
  byId("not-whole").addEventListener("change", updateDumps);
  for (const button of document.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => {
      const by = button.dataset.sort;
      const first = by === "signature" || by === "first" ? 1 : -1;
      order = { by, sign: order.by === by ? -order.sign : first };
      for (const other of document.querySelectorAll("[data-sort]")) other.closest("th").setAttribute("aria-sort", "none");
      button.closest("th").setAttribute("aria-sort", order.sign < 0 ? "descending" : "ascending");
      update();
    });
  }
  update();
  updateDumps();
  document.documentElement.dataset.ready = "yes";
})();
