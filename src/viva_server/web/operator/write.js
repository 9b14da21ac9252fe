// How numbers, times and addresses are written.

import { locale } from "../language.js";
import { text } from "./text.js";

const number = new Intl.NumberFormat(locale);
const tenth = new Intl.NumberFormat(locale, {
  minimumFractionDigits: 1,
  maximumFractionDigits: 1,
});
const clock = new Intl.DateTimeFormat(locale, { timeStyle: "medium" });
const clockAndDay = new Intl.DateTimeFormat(locale, {
  day: "2-digit",
  month: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
});
const exact = new Intl.DateTimeFormat(locale, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
});
const full = new Intl.DateTimeFormat(locale, { dateStyle: "long", timeStyle: "long" });
const UNITS = [
  ["d", 86_400],
  ["h", 3_600],
  ["min", 60],
  ["s", 1],
];
const PHONE = "@s.whatsapp.net";

export const count = (value) => number.format(value);

/** A count that ends at a limit. */
export const countUpTo = (value, limit) =>
  value < limit ? count(value) : text.more(count(limit));

/** A duration by its one or two largest units. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const first = UNITS.findIndex(([, size]) => whole >= size);
  if (first < 0) return "0 s";
  const [unit, size] = UNITS[first];
  const [next, small] = UNITS[first + 1] ?? ["", 0];
  const rest = small ? Math.floor((whole % size) / small) : 0;
  const words = `${Math.floor(whole / size)} ${unit}`;
  return rest && first < 2 ? `${words} ${rest} ${next}` : words;
}

/** A duration that is short and matters. */
export function shortDuration(seconds) {
  if (Math.abs(seconds) >= 60) return `${seconds < 0 ? "−" : ""}${duration(Math.abs(seconds))}`;
  return `${tenth.format(seconds).replace("-", "−")} s`;
}

export const timeOf = (date) => clock.format(date);
export const exactTime = (date) => exact.format(date);
export const fullTime = (date) => full.format(date);

/** The time of today, else with the day. */
export function when(date) {
  const isToday = date.toDateString() === new Date().toDateString();
  return (isToday ? clock : clockAndDay).format(date);
}

/** A chat as people write it: a phone, or what there is instead. */
export function chatName(jid) {
  if (!jid) return "–";
  if (jid.endsWith("@g.us")) return `${text.group} ${jid.slice(0, -5)}`;
  if (!jid.endsWith(PHONE)) return jid;
  const digits = jid.slice(0, -PHONE.length);
  const brazilian = /^55(\d\d)(\d{4,5})(\d{4})$/.exec(digits);
  if (brazilian) return `+55 ${brazilian[1]} ${brazilian[2]}-${brazilian[3]}`;
  return /^\d+$/.test(digits) ? `+${digits}` : digits;
}

/** The page's word for a word of the server, or that word itself. */
export const wordOf = (words, word) =>
  word && Object.hasOwn(words, word) ? words[word] : (word ?? "");

/** The end of an id, which is enough to tell it from others. */
export const shortId = (id) => id.slice(-6);
