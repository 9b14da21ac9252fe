// The way of one message as steps in the order of their times.

import { text } from "./text.js";
import { make } from "./table.js";
import { count, exactTime, fullTime, shortDuration, wordOf } from "./write.js";

const reason = (word) => wordOf(text.reasons, word);
const joined = (...parts) => parts.filter(Boolean).join(" · ");

/** Shows a trace in a list. */
export function showTimeline(list, trace) {
  const steps = stepsOf(trace);
  const first = steps.find(({ isOurs }) => isOurs)?.at ?? steps[0]?.at;
  list.replaceChildren(...steps.map((step) => element(step, first)));
}

/** The steps of a trace; each has `at`, `title`, `facts` and a `tone`. */
function stepsOf(trace) {
  const steps = [
    ...trace.messages.map(written),
    ...trace.deliveries.flatMap(ofDelivery),
    ...trace.messages.flatMap(ofMessage),
    ...trace.turns.flatMap(ofTurn),
  ];
  // Steps of one moment stay in the order in which they are caused.
  return steps
    .map((step) => ({ isOurs: true, tone: null, ...step, at: new Date(step.at) }))
    .sort((one, other) => one.at - other.at);
}

function written({ sent_at, instance, kind }) {
  const facts = joined(instance, kind, text.byWhatsApp);
  return { at: sent_at, title: text.steps.written, facts, isOurs: false };
}

function ofMessage(message) {
  const { steps } = text;
  const found = [];
  if (message.why_not) {
    const facts = reason(message.why_not);
    found.push({ at: message.stored_at, title: steps.skipped, facts, tone: "warn" });
  }
  if (message.edited_at) found.push({ at: message.edited_at, title: steps.edited, facts: "" });
  if (message.deleted_at) found.push({ at: message.deleted_at, title: steps.deleted, facts: "" });
  return found;
}

function ofDelivery(delivery) {
  const { steps } = text;
  const facts = joined(
    delivery.event,
    delivery.instance,
    delivery.receipt && wordOf(text.receipts, delivery.receipt),
  );
  const found = [
    {
      at: delivery.received_at,
      title: delivery.trusted ? steps.received : steps.untrusted,
      facts,
      tone: delivery.trusted ? "good" : "warn",
    },
    ...delivery.redelivered_at.map((at) => ({ at, title: steps.again, facts })),
  ];
  if (delivery.problem) {
    const at = delivery.received_at;
    found.push({ at, title: steps.problem, facts: delivery.problem, tone: "bad" });
  }
  return found;
}

function ofTurn(turn) {
  const { steps } = text;
  const found = [
    { at: turn.created_at, title: steps.turn, facts: "" },
    ...turn.replies.map(ofReply),
    ...turn.sends.flatMap(ofSend),
  ];
  if (turn.ended_at) {
    const isDead = turn.state === "dead";
    found.push({
      at: turn.ended_at,
      title: isDead ? steps.turnDead : steps.turnEnded,
      facts: joined(turn.runs ? steps.tries(turn.runs) : "", reason(turn.error)),
      tone: isDead ? "bad" : null,
    });
  }
  return found;
}

/** A reply stands where it began. */
function ofReply(reply) {
  const { steps } = text;
  const isCut = reply.status === "partial" || reply.status === "failed";
  const how = { streaming: steps.replying, complete: steps.replied }[reply.status];
  return {
    at: reply.created_at,
    title: steps.reply,
    facts: joined(
      how ?? steps.replyCut,
      isCut ? reason(reply.error_code ?? reply.finish_reason) : "",
      reply.status === "streaming" ? "" : steps.chars(count(reply.chars)),
    ),
    tone: isCut ? "warn" : null,
  };
}

function ofSend(send) {
  const { steps } = text;
  const tones = { sent: "good", retry: "warn", unknown: "warn", dead: "bad", dropped: "warn" };
  const facts = send.state === "sent" ? "" : joined(wordOf(text.states, send.state), reason(send.error));
  return [
    { at: send.created_at, title: steps.part, facts },
    ...send.attempts.map(({ at, outcome, reason: why }) => ({
      at,
      title: steps.attempt,
      facts: joined(wordOf(text.outcomes, outcome), reason(why), outcome === "sent" && send.message_id),
      tone: tones[outcome] ?? null,
    })),
    ...send.receipts.map(({ at, receipt }) => ({
      at,
      title: steps.receipt,
      facts: wordOf(text.receipts, receipt),
      tone: receipt === "ERROR" ? "bad" : "good",
    })),
  ];
}

function element({ at, title, facts, tone, isOurs }, first) {
  const time = make("time", { datetime: at.toISOString(), title: fullTime(at) }, exactTime(at));
  const since = isOurs ? `+${shortDuration((at - first) / 1000)}` : "";
  const item = make(
    "li",
    {},
    make("p", { class: "times" }, time, " ", make("span", { class: "since" }, since)),
    make("p", { class: "title" }, title),
    make("p", { class: "facts" }, make("bdi", {}, facts)),
  );
  if (tone) item.dataset.tone = tone;
  return item;
}

