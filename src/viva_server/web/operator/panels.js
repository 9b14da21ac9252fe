// The figures at the top, and the tables that show what the server tells at each look.

import { byId } from "../dom.js";
import { make, mark, say, Table, words } from "./table.js";
import { text } from "./text.js";
import { count, countUpTo, duration, fullTime, shortId } from "./write.js";

const SILENT_SECONDS = 5;
const SVG = "http://www.w3.org/2000/svg";
const PLOT_HEIGHT = 24;
const BAR = 4;
const TILES = ["waiting", "dead", "replies", "processes", "webhooks"];

const STATES = { alive: text.alive, silent: text.silent, dead: text.deadProcess };

const sum = (numbers) => numbers.reduce((one, other) => one + other, 0);
const seconds = (from, to) => (new Date(to) - new Date(from)) / 1000;

export class Panels {
  #tiles = new Map();
  #processes;
  #replies;
  #webhooks;
  #now = null;
  #byId = new Map();
  #own = "";

  constructor() {
    for (const target of TILES) this.#addTile(target);
    this.#processes = this.#processTable();
    this.#replies = this.#replyTable();
    this.#webhooks = webhookTable();
    for (const key of Object.keys(text.waiting)) {
      byId("waiting-list").append(make("dt", {}, text.waiting[key]), make("dd", { id: key }));
    }
  }

  show(overview) {
    this.#now = overview.now;
    this.#own = overview.process_id;
    this.#byId = new Map(overview.processes.map((each) => [each.id, each]));
    this.#showTiles(overview);
    this.#processes.show(overview.processes);
    this.#replies.show(overview.replies);
    this.#webhooks.show(overview.webhooks.events);
    byId("capped").hidden = !overview.webhooks.is_capped;
    for (const key of Object.keys(text.waiting)) {
      say(byId(key), countUpTo(overview.work[key], overview.work.counted_up_to));
    }
    const own = this.#byId.get(this.#own);
    if (own) say(byId("foot"), text.foot(own.version, own.host));
  }

  // The figures

  #addTile(target) {
    const tile = make(
      "a",
      { href: `#${target}-title` },
      make("span", { class: "label" }),
      make("span", { class: "number" }),
      make("span", { class: "note" }),
    );
    this.#tiles.set(target, tile);
    byId("tiles").append(make("li", {}, tile));
  }

  #tile(target, label, number, note, tone = null) {
    const tile = this.#tiles.get(target);
    [label, number, note].forEach((each, place) => say(tile.children[place], each));
    mark(tile, "data-tone", tone);
  }

  #showTiles({ processes, work, webhooks, now }) {
    const states = processes.map(stateOf);
    const alive = states.filter((state) => state === "alive").length;
    const silent = states.filter((state) => state === "silent").length;
    const dead = states.filter((state) => state === "dead").length;
    const note = text.processesNote(silent, dead);
    this.#tile("processes", text.processesTile, count(alive), note, silent ? "warn" : null);
    const live = sum(processes.map(({ live_replies }) => live_replies));
    const readers = sum(
      processes.map((each) => (stateOf(each) === "alive" ? each.readers : 0)),
    );
    this.#tile("replies", text.repliesTile, count(live), text.readersNote(readers));
    const minutes = webhooks.events.map(({ counts }) => counts);
    this.#tile(
      "webhooks",
      text.webhooksTile,
      count(sum(minutes.map((counts) => counts.at(-2)))),
      text.webhooksNote(count(sum(minutes.flat()))),
    );
    const age = work.turns_due_since ? seconds(work.turns_due_since, now) : 0;
    this.#tile(
      "waiting",
      text.turnsTile,
      countUpTo(work.turns_due, work.counted_up_to),
      text.turnsNote(work.turns_due ? duration(age) : ""),
      age > 10 ? "warn" : null,
    );
    const undelivered = work.dead_turns + work.dead_parts + work.dead_news;
    this.#tile(
      "dead",
      text.deadTile,
      countUpTo(undelivered, work.counted_up_to),
      text.deadNote(undelivered),
      undelivered ? "bad" : null,
    );
  }

  // The tables

  #processTable() {
    return new Table("processes-table", {
      key: ({ id }) => id,
      empty: text.noProcesses,
      columns: [
        words(text.process, nameOf, {
          kind: "name",
          title: ({ id }) => id,
          note: ({ id }) => (id === this.#own ? text.thisOne : ""),
        }),
        words(
          text.state,
          (each) => STATES[stateOf(each)],
          { tone: (each) => ({ alive: "good", silent: "warn", dead: "bad" })[stateOf(each)] },
        ),
        words(text.beat, ({ silent_seconds }) => duration(silent_seconds), { kind: "number" }),
        words(text.since, ({ started_at }) => duration(seconds(started_at, this.#now)), {
          kind: "number",
          title: ({ started_at }) => fullTime(new Date(started_at)),
        }),
        words(text.version, ({ version }) => version || "–"),
        words(text.liveReplies, ({ live_replies }) => count(live_replies), { kind: "number" }),
        words(text.readers, ({ readers }) => count(readers), { kind: "number" }),
      ],
    });
  }

  #replyTable() {
    return new Table("replies-table", {
      key: ({ id }) => id,
      empty: text.noReplies,
      columns: [
        words(text.reply, ({ id }) => `…${shortId(id)}`, {
          kind: "name mono",
          title: ({ id }) => id,
        }),
        words(text.channel, ({ channel }) => text[channel]),
        words(text.since, ({ created_at }) => duration(seconds(created_at, this.#now)), {
          kind: "number",
        }),
        words(text.chars, ({ chars }) => count(chars), { kind: "number" }),
        words(text.readers, (each) => this.#whoReads(each), {
          tone: (each) => (each.left_at && !each.far_processes ? "warn" : null),
        }),
        words(
          text.process,
          ({ process_id }) => nameOf(this.#byId.get(process_id) ?? { id: process_id }),
          { kind: "long" },
        ),
      ],
    });
  }

  #whoReads({ left_at, far_processes }) {
    if (!left_at) return text.readHere;
    return far_processes ? text.readFar : text.unread(duration(seconds(left_at, this.#now)));
  }
}

function stateOf({ dead_at, silent_seconds }) {
  if (dead_at) return "dead";
  return silent_seconds > SILENT_SECONDS ? "silent" : "alive";
}

const nameOf = ({ host, pid, id }) => (host ? `${host} · ${pid}` : `…${shortId(id)}`);

function webhookTable() {
  return new Table("webhooks-table", {
    key: ({ event }) => event,
    empty: text.noWebhooks,
    columns: [
      words(text.event, ({ event }) => event, { kind: "name" }),
      { label: text.plot, kind: "plot", start: startPlot, fill: plot },
      words(text.lastMinute, ({ counts }) => count(counts.at(-2)), { kind: "number" }),
      words(text.total, ({ counts }) => count(sum(counts)), { kind: "number" }),
    ],
  });
}

function startPlot(cell) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("role", "img");
  cell.append(picture);
}

/** Draws a bar for each minute, the present one lighter: it is not over. */
function plot(cell, { counts }) {
  const picture = cell.firstElementChild;
  const most = Math.max(...counts, 1);
  mark(picture, "viewBox", `0 0 ${counts.length * BAR} ${PLOT_HEIGHT}`);
  mark(picture, "preserveAspectRatio", "none");
  mark(picture, "aria-label", text.plotOf(count(sum(counts)), count(Math.max(...counts))));
  while (picture.childElementCount < counts.length) {
    picture.append(document.createElementNS(SVG, "rect"));
  }
  counts.forEach((value, place) => {
    const bar = picture.children[place];
    const height = value ? Math.max(2, (value / most) * PLOT_HEIGHT) : 0.75;
    mark(bar, "x", String(place * BAR));
    mark(bar, "width", String(BAR - 1));
    mark(bar, "y", String(PLOT_HEIGHT - height));
    mark(bar, "height", String(height));
    mark(bar, "class", value ? (place === counts.length - 1 ? "present" : null) : "none");
  });
}
