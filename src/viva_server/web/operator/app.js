// The operator's page: it lets an operator in, looks every few seconds, says how it is.

import { base, keepToken, takeToken } from "../access.js";
import { Api } from "../api.js";
import { byId } from "../dom.js";
import { Dead } from "./dead.js";
import { Messages } from "./messages.js";
import { Panels } from "./panels.js";
import { Refresh } from "./refresh.js";
import { say } from "./table.js";
import { text, translate } from "./text.js";
import { duration, timeOf } from "./write.js";

const TOKEN = "viva-operator-token";
const NO_ACCESS = new Set([401, 403]);

document.documentElement.lang = text.lang;
document.title = `${text.operator} · VIVA`;
translate(document);

const token = takeToken(TOKEN);
const api = new Api(base, token);
const panels = new Panels();
const messages = new Messages(api, { tell, announce });
const dead = new Dead(api, {
  ontrace: (id, opener) => messages.trace(id, opener),
  onreplayed: () => refresh.now(),
  tell,
});
const refresh = new Refresh(look, showState);

async function look() {
  try {
    const overview = await api.json("GET", "/viva/operator/overview");
    await dead.refresh(overview.work);
    await messages.refresh();
    panels.show(overview);
    messages.show(overview.messages);
    byId("main").hidden = false;
  } catch (error) {
    if (NO_ACCESS.has(error.status)) showAccess(error.status);
    throw error;
  }
}

// How fresh it is

let clock = 0;
let wasLost = false;

function showState(state) {
  if (!byId("access").hidden) return;
  const isLost = state.state === "lost";
  clearInterval(clock);
  byId("bar").dataset.state = state.state;
  byId("lost").hidden = !isLost;
  if (isLost) {
    showLost(state);
    clock = setInterval(() => showLost(state), 1000);
  } else {
    const words = state.state === "paused" ? text.paused : text.live;
    say(byId("freshness-text"), state.at ? words(timeOf(state.at)) : text.loading);
  }
  if (isLost && !wasLost) announce(text.lostSaid);
  else if (wasLost && state.state === "live") announce(text.backSaid);
  if (state.state !== "paused") wasLost = isLost;
}

function showLost({ error, retryAt, at }) {
  const wait = Math.max(1, Math.ceil((retryAt - Date.now()) / 1000));
  const words = error.status === 503 ? text.lostDatabase : text.lostServer;
  say(byId("lost-text"), words(wait));
  const age = at ? (Date.now() - at) / 1000 : 0;
  say(byId("freshness-text"), at ? text.stale(duration(age)) : text.loading);
}

byId("retry").addEventListener("click", () => refresh.now());
byId("pause").addEventListener("click", () => {
  if (refresh.isPaused) refresh.resume();
  else refresh.pause();
  say(byId("pause"), refresh.isPaused ? text.resume : text.pause);
});

// What is told

/** Tells a screen reader, once. */
function announce(words) {
  say(byId("announcer"), words);
}

/** Shows what went wrong, or what is done; each takes the other away. */
function tell(wrong, done = "") {
  say(byId("notice"), wrong);
  say(byId("done"), done);
}

// The way in

function showAccess(status) {
  refresh.stop();
  clearInterval(clock);
  const why = status === 403 ? "forbidden" : token ? "expired" : "access";
  say(byId("access-title"), text[`${why}Title`]);
  say(byId("access-text"), text[`${why}Text`]);
  for (const id of ["main", "lost", "pause", "freshness"]) byId(id).hidden = true;
  byId("access").hidden = false;
  byId("access-title").focus();
}

byId("access-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = byId("token").value.trim();
  // A whole link is as good as the token in it.
  keepToken(TOKEN, words.replace(/^.*#token=/, ""));
});

say(byId("freshness-text"), text.loading);
refresh.now();
