// Markdown as safe nodes. Nothing in a reply can run, load or look like the page.

import { marked } from "./vendor/marked.esm.js";
import "./vendor/purify.min.js";

import { text } from "./text.js";

const TAGS =
  "a blockquote br code del em h2 h3 h4 h5 h6 hr li ol p pre strong table tbody td th thead tr ul";

// Deeper than anybody writes: marked would fill the stack, or take seconds.
const TOO_DEEP = /^(?:[ \t]*(?:>|[-*+][ \t]|\d{1,9}[.)][ \t])){40}/m;
const BRACKETS = /^\\[()[\]]/;
// Bounded: an end is looked for at each beginning.
const MATH = /^\\(?:\([^]{1,2000}?\\\)|\[[^]{1,2000}?\\\])/;
const DISPLAY_MATH = /^ {0,3}\\\[[^]{1,2000}?\\\][ \t]*(?:\n|$)/;

/** TeX between backslashed brackets is shown as it was written. */
function mathOf(level, name, begin, rule) {
  return {
    name,
    level,
    start: (text) => text.match(begin)?.index,
    tokenizer(text) {
      const match = rule.exec(text);
      if (match) return { type: name, raw: match[0], text: match[0].trimEnd() };
    },
    renderer: ({ text }) => {
      const html = escape(text).replaceAll("\n", "<br>");
      return level === "block" ? `<p>${html}</p>` : html;
    },
  };
}

marked.use({
  gfm: true,
  breaks: true,
  extensions: [
    mathOf("block", "displayMath", /^ {0,3}\\\[/m, DISPLAY_MATH),
    mathOf("inline", "math", /\\[([]/, MATH),
  ],
  tokenizer: {
    // One that has no other end yet, or never: the backslash stays too.
    escape(text) {
      const match = BRACKETS.exec(text);
      return match ? { type: "text", raw: match[0], text: match[0] } : false;
    },
  },
  renderer: {
    // HTML in a reply is shown as it was written.
    html: ({ text: source }) => escape(source),
    // An image would be loaded from elsewhere: a link to it instead.
    image: ({ href, text: name }) => `<a href="${escape(href)}">${escape(name || href)}</a>`,
    // The page itself has the first level.
    heading({ tokens, depth }) {
      const level = Math.min(depth + 1, 6);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

const ALLOWED = {
  ALLOWED_TAGS: TAGS.split(" "),
  ALLOWED_ATTR: ["href", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?:\/\/|mailto:)/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

/** Makes the nodes of a reply's text; plain text of what is no Markdown for marked. */
function render(markdown) {
  try {
    if (!TOO_DEEP.test(markdown)) return rendered(markdown);
  } catch (error) {
    console.warn("shown as plain text:", error);
  }
  const plain = document.createElement("p");
  plain.className = "plain";
  plain.textContent = markdown;
  const fragment = document.createDocumentFragment();
  fragment.append(plain);
  return fragment;
}

function rendered(markdown) {
  const fragment = DOMPurify.sanitize(marked.parse(markdown), ALLOWED);
  fragment.querySelectorAll("a").forEach(finishLink);
  fragment.querySelectorAll("pre, table").forEach(makeScrollable);
  return fragment;
}

/** Shows the text in an element; nodes that stay the same are kept, selection and all. */
export function renderInto(element, markdown) {
  const next = [...render(markdown).childNodes];
  const now = [...element.childNodes];
  let same = 0;
  while (same < now.length && same < next.length && now[same].isEqualNode(next[same])) {
    same += 1;
  }
  now.slice(same).forEach((node) => node.remove());
  element.append(...next.slice(same));
}

function finishLink(link) {
  const href = link.getAttribute("href");
  if (!href) {
    link.replaceWith(...link.childNodes);
    return;
  }
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  link.title = href; // where it really leads, whatever its text says
}

/** Wide content scrolls in a box of its own, which the keyboard can reach. */
function makeScrollable(element) {
  const box = document.createElement("div");
  const scroller = document.createElement("div");
  box.className = element.matches("pre") ? "code" : "table";
  scroller.className = "scroller";
  scroller.tabIndex = 0;
  element.replaceWith(box);
  scroller.append(element);
  box.append(scroller);
  if (element.matches("pre") && navigator.clipboard) box.append(copyButton());
}

function copyButton() {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = text.copy;
  return button;
}

/** Handles a click on any of the copy buttons in an element. */
export async function copyCode(event) {
  const button = event.target.closest("button.copy");
  if (!button) return;
  await navigator.clipboard.writeText(button.parentElement.querySelector("pre").innerText);
  button.textContent = text.copied;
  setTimeout(() => (button.textContent = text.copy), 2000);
}

function escape(source) {
  const names = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return source.replace(/[&<>"]/g, (char) => names[char]);
}
