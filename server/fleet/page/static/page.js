// Renews what is marked as live when the server says that something is new. No address but its own.

const LEAST_MS = 1500;
const IDLE_MS = 30000;
const pulse = document.getElementById("pulse");
let shown = 0;
let due = null;
let asking = false;

/** Show whether what is seen is renewed; told only when it changes. */
function beat(alive) {
  const text = alive ? "renewed by itself" : "not renewed: the server does not answer";
  if (pulse.textContent !== text) pulse.textContent = text;
}

/** Return whether somebody is at work in an element: it is left alone then. */
function busy(element) {
  const active = document.activeElement;
  if (active && element.contains(active) && active.matches("input, textarea, select, button")) return true;
  return [...element.querySelectorAll("textarea, input:not([type=hidden]), details[data-opened]")]
    .some((one) => one.dataset.opened || (one.value !== undefined && one.value !== one.defaultValue));
}

/** Put in place what is new; the keyboard's place is kept where the same link is there again. */
function take(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  if (!fresh.getElementById("main")) return;
  if (document.title !== fresh.title) document.title = fresh.title;
  for (const old of document.querySelectorAll("[data-live]")) {
    const now = fresh.getElementById(old.id);
    if (!now) continue;
    if (old.isEqualNode(now) || busy(old)) continue;
    const active = document.activeElement;
    const href = active && old.contains(active) ? active.getAttribute("href") : null;
    const place = document.importNode(now, true);
    for (const was of old.querySelectorAll("details")) {
      const is = [...place.querySelectorAll("details")].find(
        (one) => one.firstChild.textContent === was.firstChild.textContent);
      if (is) is.open = was.open;
    }
    old.replaceWith(place);
    if (href) {
      const link = [...place.querySelectorAll("a")].find((one) => one.getAttribute("href") === href);
      if (link) link.focus({ preventScroll: true });
    }
  }
  watch();
}

async function renew() {
  due = null;
  if (asking || document.hidden) return;
  asking = true;
  try {
    const address = location.href;
    const answer = await fetch(address, { headers: { Accept: "text/html" } });
    if (answer.redirected && new URL(answer.url).pathname === "/login") { location.assign("/login"); return; }
    if (answer.ok || answer.status === 404) {
      const text = await answer.text();
      if (address === location.href) take(text);
    }
    shown = performance.now();
    beat(answer.ok);
  } catch {
    beat(false);
  } finally {
    asking = false;
    document.body.dataset.renewed = String(Number(document.body.dataset.renewed || 0) + 1);
  }
}

function soon() {
  if (due !== null) return;
  due = setTimeout(renew, Math.max(0, shown + LEAST_MS - performance.now()));
}

// -- the list of machines: what is typed is looked for at once --------------------------------

function watch() {
  for (const details of document.querySelectorAll("details")) {
    details.ontoggle = () => {
      if (details.open && details.querySelector("form")) details.dataset.opened = "yes";
      else delete details.dataset.opened;
    };
  }
}

const filters = document.querySelector("form.filters");
if (filters) {
  let timer = null;
  const look = () => {
    const wanted = new URLSearchParams([...new FormData(filters)].filter(([, value]) => value));
    if (wanted.get("order") === "worst") wanted.delete("order");
    const query = wanted.toString();
    history.replaceState(null, "", query ? `/?${query}` : "/");
    renew();
  };
  filters.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(look, 300); });
  filters.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(timer); look(); });
}

watch();
beat(true);
const news = new EventSource("/events");
news.addEventListener("changed", soon);
news.addEventListener("open", () => { beat(true); document.body.dataset.ready = "yes"; soon(); });
news.addEventListener("error", () => beat(false));
document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
addEventListener("pageshow", (event) => { if (event.persisted) soon(); });
setInterval(soon, IDLE_MS);
