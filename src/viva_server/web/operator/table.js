// Tables and lists that are updated in place, so that focus and selection stay.

import { byId } from "../dom.js";

/** Makes an element; what is given as text can never be anything else. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Sets an element's text where it is another one. */
export function say(element, words) {
  const wanted = String(words);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Sets an attribute, or takes it away for null. */
export function mark(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export class Table {
  #table;
  #body;
  #empty;
  #columns;
  #keyOf;
  #rows = new Map();

  /**
   * Fills the table with this id. A column has a `label` and `fill(cell, row)`, which
   * is called whenever the row is shown; `start(cell)` is called once before.
   */
  constructor(id, { columns, key, empty }) {
    this.#table = byId(id);
    this.#columns = columns;
    this.#keyOf = key;
    this.#body = make("tbody", { role: "rowgroup" });
    this.#empty = make("p", { class: "empty" }, empty);
    const titles = columns.map(({ label }) =>
      make("th", { scope: "col", role: "columnheader" }, label),
    );
    const head = make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...titles));
    // On a phone the rows are cards: the roles keep them a table for screen readers.
    this.#table.setAttribute("role", "table");
    this.#table.append(head, this.#body);
    this.#table.after(this.#empty);
    this.#table.hidden = true;
  }

  /** Shows these rows in this order; `empty` is said where there is none. */
  show(rows, empty) {
    const shown = new Map();
    for (const row of rows) {
      const key = this.#keyOf(row);
      const element = this.#rows.get(key) ?? this.#make();
      this.#columns.forEach(({ fill }, place) => fill(element.cells[place], row));
      shown.set(key, element);
    }
    this.#rows = shown;
    this.#arrange([...shown.values()]);
    if (empty) say(this.#empty, empty);
    this.#table.hidden = !shown.size;
    this.#empty.hidden = Boolean(shown.size);
  }

  /** Moves only what is not in its place: an element that is moved loses the focus. */
  #arrange(elements) {
    const wanted = new Set(elements);
    for (const element of [...this.#body.rows]) if (!wanted.has(element)) element.remove();
    elements.forEach((element, place) => {
      if (this.#body.rows[place] !== element) {
        this.#body.insertBefore(element, this.#body.rows[place] ?? null);
      }
    });
  }

  #make() {
    const cells = this.#columns.map(({ label, start, kind }) => {
      const cell = make("td", { role: "cell", "data-label": label });
      if (kind) cell.className = kind;
      start?.(cell);
      return cell;
    });
    return make("tr", { role: "row" }, ...cells);
  }
}

/**
 * A column that says what `wordsOf` gives for a row, and in a second line what `note`
 * gives; `tone` may colour it.
 */
export function words(label, wordsOf, { kind, tone, title, note } = {}) {
  return {
    label,
    kind,
    start(cell) {
      cell.append(make("bdi"));
      if (note) cell.append(make("bdi", { class: "note" }));
    },
    fill(cell, row) {
      const [first, second] = cell.children;
      say(first, wordsOf(row));
      if (tone) mark(first, "data-tone", tone(row));
      if (title) mark(first, "title", title(row));
      if (note) say(second, note(row));
    },
  };
}
