// Reads the bytes of a stream from stdin and prints what a parser made of them, fed in
// pieces of a given size: node decode.mjs eventsource-parser|fetch-event-source SIZE
import { stdin, stdout, argv } from "node:process";
import { createParser } from "eventsource-parser";
import {
  getBytes,
  getLines,
  getMessages,
} from "@microsoft/fetch-event-source/lib/cjs/parse.js";

const chunks = [];
for await (const chunk of stdin) chunks.push(chunk);
const bytes = Buffer.concat(chunks);
const [parser, size] = [argv[2], Number(argv[3])];
const seen = { events: [], retries: [], errors: [] };

function* pieces() {
  for (let start = 0; start < bytes.length; start += size) {
    yield new Uint8Array(bytes.subarray(start, start + size));
  }
}

if (parser === "eventsource-parser") {
  const decoder = new TextDecoder();
  const feeding = createParser({
    onEvent: ({ id, event, data }) => seen.events.push({ id, event, data }),
    onRetry: (retry) => seen.retries.push(retry),
    onError: (error) => seen.errors.push(String(error)),
  });
  for (const piece of pieces()) {
    feeding.feed(decoder.decode(piece, { stream: true }));
  }
} else {
  const onMessage = ({ id, event, data }) => seen.events.push({ id, event, data });
  const onRetry = (retry) => seen.retries.push(retry);
  const onLine = getLines(getMessages(() => {}, onRetry, onMessage));
  const body = new ReadableStream({
    start(controller) {
      for (const piece of pieces()) controller.enqueue(piece);
      controller.close();
    },
  });
  await getBytes(body, onLine);
}
stdout.write(JSON.stringify(seen));
