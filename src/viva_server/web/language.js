// The language of the browser: Portuguese or English, and how it writes times.

/** The first language of the browser that is one of the two; else Portuguese. */
const wanted = navigator.languages.find((name) => /^(pt|en)\b/i.test(name)) ?? "pt";
const isEnglish = /^en/i.test(wanted);

/** Gives the texts of the browser's language. */
export const choose = (portuguese, english) => (isEnglish ? english : portuguese);

/** The browser's own kind of that language, for dates and numbers. */
export const locale = /^(pt|en)/i.test(wanted) ? wanted : "pt-BR";

const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(locale, { day: "numeric", month: "short" });
const full = new Intl.DateTimeFormat(locale, { dateStyle: "long", timeStyle: "short" });

/** Today's time, else the day. */
export function shortTime(date) {
  const isToday = date.toDateString() === new Date().toDateString();
  return (isToday ? clock : day).format(date);
}

export const longTime = (date) => full.format(date);

/** Fills in the texts that the elements below `root` name. */
export function fillIn(root, text) {
  for (const element of root.querySelectorAll("[data-text]")) {
    element.textContent = text[element.dataset.text];
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text[element.dataset.label]);
    if (element.matches("button")) element.title = text[element.dataset.label];
  }
}
