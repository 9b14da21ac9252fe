// Where the API is, and the token that a link has brought.

export const base = new URL(document.querySelector("meta[name=viva-api]").content, location)
  .pathname.replace(/\/$/, "");

/**
 * Gives the token of this tab, null without one. A token in the address, where others
 * can see it, is moved from there into the tab; so is one that comes later.
 */
export function takeToken(name) {
  const key = `${name}:${base}`;
  moveToken(key);
  addEventListener("hashchange", () => moveToken(key) && location.reload());
  return sessionStorage.getItem(key);
}

/** Keeps a token that a person typed, and begins with it. */
export function keepToken(name, token) {
  sessionStorage.setItem(`${name}:${base}`, token);
  location.reload();
}

/** Whom a token names, as far as the page can see: "" for one that is no JWT. */
export function personOf(token) {
  try {
    const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(part), (char) => char.charCodeAt(0));
    return String(JSON.parse(new TextDecoder().decode(bytes)).sub ?? "");
  } catch {
    return "";
  }
}

function moveToken(key) {
  const match = /^#token=(.+)$/.exec(location.hash);
  if (!match) return false;
  sessionStorage.setItem(key, decodeURIComponent(match[1]));
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}
