// Small helpers for elements.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** A copy of a template's one element. */
export const copyOf = (id) => byId(id).content.firstElementChild.cloneNode(true);
