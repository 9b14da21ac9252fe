// Asks a running server with fetch-event-source, as a web page does, and prints the
// events: node follow.mjs URL TOKEN MESSAGE
import { stdout, argv } from "node:process";
import { fetchEventSource } from "@microsoft/fetch-event-source/lib/cjs/index.js";

globalThis.window = globalThis;
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };

const [url, token, message] = argv.slice(2);
const events = [];
await fetchEventSource(url, {
  method: "POST",
  headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
  body: JSON.stringify({ mensagem: message }),
  onmessage: ({ id, event, data }) => events.push({ id, event, data }),
  onerror: (error) => {
    throw error; // or it tries again for ever
  },
});
stdout.write(JSON.stringify({ events }));
