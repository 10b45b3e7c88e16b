// The table of instances. Rows keep their elements, so focus and selection survive each update.
// While the reader points at the rows, or has the focus in them, none of them moves.
export function render({ model, el }) {
  const columns = model.columns;
  const node = (name, attributes = {}, text = "") => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    return made;
  };
  const find = node("input", {
    type: "search", id: "find", placeholder: "Find an instance", autocomplete: "off",
    "aria-label": "Find an instance", spellcheck: "false",
  });
  const table = node("table");
  table.append(node("caption", {}, "Instances, those with the newest trouble first unless sorted"));
  const head = node("tr");
  const headings = {};
  for (const column of columns) {
    const cell = node("th", { scope: "col", "data-hide": column.hide });
    if (column.number) cell.classList.add("number");
    if (column.sortable) {
      const button = node("button", { type: "button", title: column.hint }, column.title);
      button.addEventListener("click", () => model.send_msg({ sort: column.field }));
      cell.append(button);
      headings[column.field] = cell;
    } else {
      cell.textContent = column.title;
      cell.title = column.hint;
    }
    head.append(cell);
  }
  const top = node("thead");
  top.append(head);
  const body = node("tbody");
  table.append(top, body);
  const nothing = node("p", { class: "nothing", role: "status", hidden: "" });
  const before = node("button", { type: "button" }, "Previous");
  const after = node("button", { type: "button" }, "Next");
  const place = node("span", { "aria-live": "polite" });
  const pages = node("nav", { "aria-label": "Pages of the table" });
  pages.append(before, place, after);
  const wide = node("div", { class: "wide" });
  wide.append(table);
  el.append(find, wide, nothing, pages);

  const rows = new Map();
  let about = { page: 1, pages: 1 };
  let pending = null;
  let pointed = false;
  let focused = false;
  let held = false;

  const address = (name, at) =>
    "instance?name=" + encodeURIComponent(name) + (at ? "&at=" + at : "");

  const row = (name) => {
    if (rows.has(name)) return rows.get(name);
    const made = { line: node("tr"), cells: {}, at: "" };
    for (const column of columns) {
      const first = column.field === "instance";
      const cell = first ? node("th", { scope: "row" }) : node("td");
      cell.dataset.field = column.field;
      cell.dataset.hide = column.hide;
      if (column.number) cell.classList.add("number");
      if (first) {
        made.link = node("a", { href: address(name) }, name);
        cell.append(made.link);
      } else if (column.field === "state") {
        made.state = node("a", { href: address(name) });
        made.why = node("span", { class: "why" });
        cell.append(made.state, made.why);
      }
      made.cells[column.field] = cell;
      made.line.append(cell);
    }
    rows.set(name, made);
    return made;
  };

  const fill = (name, changed) => {
    const made = row(name);
    for (const [field, text] of Object.entries(changed)) {
      if (field === "instance") continue;
      if (field === "tone") made.line.dataset.tone = text;
      else if (field === "at") made.state.href = address(name, text);
      else if (field === "why") made.why.textContent = text;
      else if (field === "state") made.state.textContent = text;
      else if (field === "spark") made.cells.spark.innerHTML = text; // numbers only
      else if (made.cells[field]) made.cells[field].textContent = text;
    }
  };

  const arrange = () => {
    if (pending === null || held) return;
    const wanted = new Set(pending);
    for (const [name, made] of rows) {
      if (!wanted.has(name)) { made.line.remove(); rows.delete(name); }
    }
    pending.forEach((name, at) => {
      const line = row(name).line;
      if (body.children[at] !== line) body.insertBefore(line, body.children[at] || null);
    });
    table.hidden = pending.length === 0;
    pending = null;
  };

  const show = () => {
    for (const [field, cell] of Object.entries(headings)) {
      if (field === about.sort) {
        cell.setAttribute("aria-sort", about.descending ? "descending" : "ascending");
      } else cell.removeAttribute("aria-sort");
    }
    before.disabled = about.page <= 1;
    after.disabled = about.page >= about.pages;
    pages.hidden = about.pages <= 1;
    place.textContent = `Page ${about.page} of ${about.pages}, `
      + `${about.found.toLocaleString("en")} instances`;
    nothing.hidden = about.found > 0 || !about.find;
    nothing.textContent = about.find ? `No instance matches ${about.find}` : "";
    if (el.getRootNode().activeElement !== find) find.value = about.find;
    history.replaceState(null, "", about.query ? "?" + about.query : location.pathname);
  };

  const hold = () => {
    const now = pointed || focused;
    if (now === held) return;
    held = now;
    model.send_msg({ held });
    arrange();
  };
  body.addEventListener("pointerenter", () => { pointed = true; hold(); });
  body.addEventListener("pointerleave", () => { pointed = false; hold(); });
  body.addEventListener("pointercancel", () => { pointed = false; hold(); });
  body.addEventListener("focusin", () => { focused = true; hold(); });
  body.addEventListener("focusout", () => { focused = false; hold(); });
  // What the reader asks for is done at once, wherever the focus is.
  const ask = (wish) => { pointed = focused = false; hold(); model.send_msg(wish); };
  let typed = null;
  find.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(() => ask({ find: find.value }), 150);
  });
  before.addEventListener("click", () => ask({ page: about.page - 1 }));
  after.addEventListener("click", () => ask({ page: about.page + 1 }));

  model.on("msg:custom", (event) => {
    const message = JSON.parse(event.data ?? event);
    if (message.order) pending = message.order;
    for (const [name, changed] of Object.entries(message.rows || {})) fill(name, changed);
    arrange();
    if (message.about) { about = message.about; show(); }
  });
  model.send_msg({ ready: true });
}
