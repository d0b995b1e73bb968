/* Tables whose cells change in place.

   Rules of this file:
   - What a cell shows is text, never markup: paths and names come from anybody.
   - A row that stays is the same element, so that the focus and a selection stay where they are. */

"use strict";

window.headraceOperations = window.headraceOperations || {};

window.headraceOperations.Table = class {
  /* ``columns``: [{label, kind, value(row) -> text, key?, make?(row) -> Node}];
     ``identity(row)``: what tells a row from the others. */
  constructor(table, { caption, columns, identity, none, onSort }) {
    this.columns = columns;
    this.identity = identity;
    this.none = none;
    this.rows = new Map();
    table.createCaption().textContent = caption;
    table.caption.className = "hr-unseen";
    const head = table.createTHead().insertRow();
    this.heads = columns.map((column) => {
      const cell = document.createElement("th");
      cell.scope = "col";
      if (column.kind) cell.className = `hr-${column.kind}`;
      if (column.sort && onSort) {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "hr-sort";
        button.textContent = column.label;
        button.addEventListener("click", () => onSort(column.sort));
        cell.append(button);
      } else {
        cell.textContent = column.label;
      }
      head.append(cell);
      return cell;
    });
    this.body = table.createTBody();
    this.show([]);
  }

  /* Say by which column the rows are sorted. */
  sorted(by, descending) {
    this.columns.forEach((column, i) => {
      if (column.sort && column.sort === by) {
        this.heads[i].setAttribute("aria-sort", descending ? "descending" : "ascending");
      } else {
        this.heads[i].removeAttribute("aria-sort");
      }
    });
  }

  show(rows) {
    const focused = this.body.contains(document.activeElement) ? document.activeElement : null;
    const wanted = new Map(rows.map((row) => [String(this.identity(row)), row]));
    this.empty?.remove();
    this.empty = null;
    for (const [key, element] of this.rows) {
      if (!wanted.has(key)) {
        element.remove();
        this.rows.delete(key);
      }
    }
    let place = this.body.firstElementChild;
    for (const [key, row] of wanted) {
      let element = this.rows.get(key);
      if (!element) {
        element = this.#make(row);
        this.rows.set(key, element);
      }
      if (element !== place) this.body.insertBefore(element, place);
      else place = place.nextElementSibling;
      this.#fill(element, row);
    }
    if (!wanted.size) {
      const cell = document.createElement("td");
      cell.colSpan = this.columns.length;
      cell.className = "hr-none";
      cell.textContent = this.none;
      this.empty = document.createElement("tr");
      this.empty.append(cell);
      this.body.append(this.empty);
    }
    // A row that was moved has lost the focus; one that is gone can't have it.
    if (focused && focused !== document.activeElement && focused.isConnected) {
      focused.focus({ preventScroll: true });
    }
  }

  #make(row) {
    const element = document.createElement("tr");
    this.columns.forEach((column, i) => {
      const cell = document.createElement(i === 0 ? "th" : "td");
      if (i === 0) cell.scope = "row";
      if (column.kind) cell.className = `hr-${column.kind}`;
      if (column.make) cell.append(column.make(row));
      element.append(cell);
    });
    return element;
  }

  #fill(element, row) {
    this.columns.forEach((column, i) => {
      if (column.make) return;
      const cell = element.cells[i];
      const text = column.value(row);
      if (cell.textContent !== text) {
        cell.textContent = text;
        if (column.kind === "text") cell.title = text;
      }
    });
  }
};
