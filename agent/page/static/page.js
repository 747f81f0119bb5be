// The page: asks the agent each two seconds, and shows what it says. No address but its own.

import { bar, make, plot, spark, state } from "./draw.js";

const EVERY_MS = 2000;
const PATIENCE_MS = 8000;
const SHOWN = 300;
const $ = (id) => document.getElementById(id);
let stretch = "recent";
let heardAt = null;
let lastAsset = null;
let rows = new Map();

// -- words ------------------------------------------------------------------------------------

const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
const count = (n) => n.toLocaleString("en", { maximumFractionDigits: 0 });

function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

const bytes = (n) => (n < 1e3 ? `${n} B` : n < 1e6 ? `${(n / 1e3).toFixed(1)} kB` : `${(n / 1e6).toFixed(1)} MB`);
const moment = (t) => new Date(1000 * t).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

function clockFor(times) {
  const days = (times[times.length - 1] - times[0]) / 86400;
  const format = days > 2 ? { day: "numeric", month: "short", hour: "2-digit" }
    : days > 0.04 ? { hour: "2-digit", minute: "2-digit" }
      : { hour: "2-digit", minute: "2-digit", second: "2-digit" };
  return (t) => new Date(1000 * t).toLocaleString("en-GB", format);
}

const hours = (h) => (h < 10 ? h.toFixed(1) : Math.round(h).toString());

function left(asset) {
  if (asset.rul_h === null) return ["–", null];
  if (asset.rul_low_h !== null) {
    return [`${hours(asset.rul_h)} h`, `${hours(asset.rul_low_h)} to ${hours(asset.rul_high_h)} h`];
  }
  return [`${hours(asset.rul_h)} h`, asset.rul_error_h === null ? "error not known" : `± ${hours(asset.rul_error_h)} h`];
}

function age(asset) {
  return asset.age_s === null ? "not heard lately" : asset.age_s < 3 ? "heard just now" : `heard ${span(asset.age_s)} ago`;
}

// -- the whole --------------------------------------------------------------------------------

/** Change what stands in a place, only if it is another: a reader is not told twice. */
function put(place, key, children) {
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.replaceChildren(...children);
}

function showOverall(told) {
  const { machines, alerts, failing, degraded, learning, unacknowledged, shelved, marked } = told.overall;
  const place = $("overall");
  const parts = [];
  if (failing) parts.push(`${failing} failing`);
  if (degraded) parts.push(`${degraded} degraded`);
  if (unacknowledged) parts.push(`${unacknowledged} to be acknowledged`);
  if (shelved) parts.push(`${shelved} shelved`);
  if (learning) parts.push(`${learning} learning`);
  const head = alerts ? `${plural(alerts, "alert")} on ${plural(machines, "machine")}`
    : `${plural(machines, "machine")}, no alert`;
  const data = marked ? `data in doubt from ${plural(marked, "machine")}` : "newest data good";
  const rejected = Object.values(told.data.rejected).reduce((sum, n) => sum + n, 0);
  const more = [...parts, machines ? data : null, rejected ? `${plural(rejected, "message")} rejected` : null,
    told.broker.connected ? null : `no broker for ${span(told.broker.absent_s)}`,
    ...told.channels.filter((channel) => !channel.alive || channel.trouble)
      .map((channel) => `notices not sent by ${channel.name}`)];
  const fine = more.filter((part) => part).join(" · ");
  place.className = `overall ${failing ? "bad" : alerts || !told.broker.connected ? "warn" : machines ? "good" : ""}`;
  put(place, head + fine, [head, make("small", {}, fine)]);
  document.title = `${alerts ? `(${alerts}) ` : ""}${told.node} – Runout`;
}

/** What is owed to its alert, or hides it. */
function owed(asset) {
  return asset.alert_state === "normal" ? null : make("small", {}, `alert ${asset.alert_state}`);
}

/** A reason, what it rests on in small letters. */
function because(text) {
  const at = text.indexOf(" (");
  return at < 0 ? make("li", {}, text) : make("li", {}, text.slice(0, at), make("small", {}, text.slice(at + 1)));
}

const link = (name) => `#/asset/${encodeURIComponent(name)}`;

function cells(asset) {
  const [time, error] = left(asset);
  return [
    make("th", { scope: "row" }, make("a", { href: link(asset.name) }, asset.name),
      make("small", {}, asset.class)),
    make("td", {}, state(asset.state), owed(asset)),
    make("td", {}, bar(asset.health, asset.state)),
    make("td", { class: `number hours ${error === null ? "unknown" : ""}` }, time, error ? make("small", {}, error) : null),
    make("td", { class: "trend" }, spark(asset.spark, asset.score)),
    make("td", { class: "why" }, ...(asset.why.length
      ? [make("ul", {}, ...asset.why.map(because))] : [])),
    make("td", { class: "data" }, ...asset.marks.map((mark) => make("span", { class: "mark" }, mark)),
      make("small", {}, age(asset))),
  ];
}

function showAssets(told) {
  const body = $("assets").tBodies[0];
  const shown = told.assets.slice(0, SHOWN);
  const kept = new Map();
  // A row stays the element it is, so that the keyboard's place in the table is not lost.
  const focused = document.activeElement?.closest("tr")?.dataset.name;
  shown.forEach((asset, i) => {
    let row = rows.get(asset.name);
    if (!row) {
      row = make("tr", {});
      row.dataset.name = asset.name;
      row.addEventListener("click", () => { location.hash = link(asset.name); });
    }
    const key = JSON.stringify({ ...asset, age_s: asset.age_s === null ? null : span(asset.age_s) });
    if (row.dataset.key !== key) {
      row.dataset.key = key;
      row.replaceChildren(...cells(asset));
      if (focused === asset.name) row.querySelector("a").focus();
    }
    if (body.children[i] !== row) {
      body.insertBefore(row, body.children[i] ?? null);
      if (focused === asset.name) row.querySelector("a").focus();
    }
    kept.set(asset.name, row);
  });
  for (const [name, row] of rows) if (!kept.has(name)) row.remove();
  rows = kept;
  $("assets").hidden = shown.length === 0;
  $("none").hidden = shown.length !== 0;
  const more = told.assets.length - shown.length;
  put($("machines"), `${more}`, [more > 0 ? `Machines (the worst ${SHOWN} of ${told.assets.length})` : "Machines"]);
}

function showTroubles(told) {
  const place = $("troubles");
  place.hidden = told.troubles.length === 0;
  put(place, told.troubles.join(), told.troubles.map((trouble) => make("span", {}, `Not well: ${trouble}`)));
}

// -- this device ------------------------------------------------------------------------------

function facts(title, pairs) {
  const list = make("dl", {});
  for (const [name, value] of pairs) list.append(make("dt", {}, name), make("dd", {}, value));
  return make("div", { class: "card" }, make("h3", {}, title), list);
}

function counted(title, names, entries, none) {
  const card = make("div", { class: "card" }, make("h3", {}, title));
  if (!entries.length) {
    card.append(make("p", { class: "fine" }, none));
    return card;
  }
  entries.sort((a, b) => b[1] - a[1]);
  const body = make("tbody", {}, ...entries.slice(0, 30).map(([key, n]) =>
    make("tr", {}, make("td", {}, key), make("td", {}, count(n)))));
  card.append(make("table", {}, make("thead", {},
    make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)))), body));
  return card;
}

function alerts(title, told, withName) {
  const card = make("div", { class: "card" }, title === null ? null : make("h3", {}, title));
  if (!told.length) card.append(make("p", { class: "fine" }, "none"));
  else card.append(make("ol", { class: "list" }, ...told.slice(0, 20).map((alert) => make("li", {},
    make("time", { datetime: new Date(1000 * alert.t).toISOString() },
      `${moment(alert.t)}, ${alert.state}`),
    withName ? make("a", { href: link(alert.asset) }, alert.text) : alert.text))));
  return card;
}

/** What nine of ten values are at most: a bound of the histogram. */
function mostOf(histogram, word, last = "") {
  const total = histogram.counts.reduce((sum, n) => sum + n, 0);
  if (!total) return "–";
  let sum = 0;
  const i = histogram.counts.findIndex((n) => (sum += n) >= 0.9 * total);
  return i < histogram.bounds.length ? `9 of 10 ${last} ${word(histogram.bounds[i])}` : `over ${word(histogram.bounds.at(-1))}`;
}

const ms = (s) => (s < 1 ? `${+(1000 * s).toPrecision(3)} ms` : `${s} s`);

function showDevice(told) {
  const { broker, data, files, process } = told;
  const panels = [
    facts("Broker", [
      ["address", broker.address],
      ["connection", broker.connected ? "connected" : `absent for ${span(broker.absent_s)}`],
      ["results not with it", broker.backlog ? `${count(broker.backlog)}, the oldest ${span(broker.backlog_s)} old` : "none"],
      ["connections made", count(broker.sessions)],
    ]),
    ...told.sources.map((source) => facts(`Source ${source.name}`, [
      ["kind", source.kind],
      ["state", !source.alive ? "its thread has ended" : source.connected ? "connected" : "not connected"],
      ["readings' worth", count(source.frames)],
      ["could not be used", count(source.bad_frames)],
      ["lost or put off", count(source.overflows)],
      ["opened again", count(source.reconnects)],
      ["received", bytes(source.bytes)],
    ])),
    ...told.channels.map((channel) => facts(`Notices by ${channel.name}`, [
      ["kind", channel.kind],
      ["state", !channel.alive ? "its thread has ended" : channel.trouble || "good"],
      ["sent", count(channel.sent)],
      ["waiting", channel.waiting ? `${count(channel.waiting)}, the oldest since ${moment(channel.oldest)}` : "none"],
      ["attempts that failed", count(channel.failed)],
      ["given up, dropped", `${count(channel.given_up)}, ${count(channel.dropped)}`],
    ])),
    facts("Data", [
      ["readings", count(data.readings)],
      ["came again", count(data.repeated)],
      ["too late", count(data.late)],
      ["time begun anew", data.clock_steps ? `${count(data.clock_steps)}, by a clock set back` : "never"],
      ["values marked bad", count(data.bad)],
      ["life events, lives ended", `${count(data.events)}, ${count(data.lives)}`],
      ["waiting to be judged", count(data.waiting)],
    ]),
    counted("Messages rejected", ["reason", "messages"], Object.entries(data.rejected), "none since the agent started"),
    counted("Values marked", ["channel and reason", "values"], Object.entries(data.marked), "none"),
    facts("Judged by", told.classes.flatMap((one) => [
      [one.name, one.release ? `release ${one.release}, ${one.digest.slice(0, 12)}` : "this device's own models"],
    ])),
    facts("The agent", [
      ["version", `${process.version}, contract ${process.contract}`],
      ["running for", span(process.uptime_s)],
      ["memory", process.resident_bytes ? bytes(process.resident_bytes) : "not known"],
      ["processor", `${span(process.cpu_s)} (${((100 * process.cpu_s) / Math.max(1, process.uptime_s)).toFixed(1)} %)`],
      ["written to disk", !process.written_bytes ? "not known" : process.written_bytes_a_day === null ? bytes(process.written_bytes)
        : `${bytes(process.written_bytes)}, ${bytes(process.written_bytes_a_day)} a day`],
      ["journal, database", `${bytes(files.journal_bytes)}, ${bytes(files.store_bytes)}`],
      ["checkpoint", files.checkpoint === null ? "none yet" : `${span(Math.max(0, told.at - files.checkpoint))} ago`],
      ["arrival to commit", mostOf(told.latency, ms, "within")],
      ["a commit takes", mostOf(told.commit, ms, "up to")],
      ["messages in a commit", mostOf(told.batch, (n) => count(n), "up to")],
    ]),
  ];
  const linked = [...$("last").querySelectorAll("a")].indexOf(document.activeElement);
  $("alerts").replaceChildren(alerts(null, told.alerts, true));
  if (linked >= 0) $("last").querySelectorAll("a")[linked]?.focus();
  const focused = [...$("panels").querySelectorAll("a")].indexOf(document.activeElement);
  $("panels").replaceChildren(...panels);
  if (focused >= 0) $("panels").querySelectorAll("a")[focused]?.focus();
}

// -- one machine ------------------------------------------------------------------------------

function choice() {
  const group = make("div", { class: "choice", role: "group", "aria-label": "stretch of time" });
  for (const [key, text] of [["recent", "Last reports"], ["trend", "Since the beginning"]]) {
    const button = make("button", { type: "button", "aria-pressed": String(stretch === key), id: `stretch-${key}` }, text);
    button.addEventListener("click", () => { stretch = key; if (lastAsset) showAsset(lastAsset); });
    group.append(button);
  }
  return group;
}

/** Channels as they come, the features that speak against it, and the last burst's lines. */
function signals(asset, place) {
  // As the style sheet lays them out, so that their letters are as large as all others.
  const whole = place.clientWidth || 700;
  const columns = whole < 680 ? 2 : Math.floor((whole + 13) / 285);
  const width = Math.max(140, (whole - 13 * (columns - 1)) / columns - 22);
  const small = { width, height: 120, free: true };
  const found = [];
  const section = (title, note, plots) => {
    if (plots.length) found.push(make("h3", { class: "signals" }, title, make("small", {}, note)), make("div", { class: "plots small" }, ...plots));
  };
  section("Channels", "the newest readings, as they came", asset.channels.map((one) =>
    plot(`${one.name}, ${one.unit}`, one.t, one.values,
      { ...small, clock: one.t.length > 1 ? clockFor(one.t) : moment, bounds: [one.low, one.high] })));
  const features = asset.features;
  section("Features", "at the last reports; what speaks against it first", (features?.of ?? []).map((one) =>
    plot(`${one.channel} ${one.feature}`, features.t, one.values,
      { ...small, clock: features.t.length > 1 ? clockFor(features.t) : moment, strong: one.against })));
  section("Spectra", "of the newest burst", asset.spectra.map((one) =>
    plot(`${one.name}, ${one.unit}`, one.hz, one.values,
      { width, height: 150, digits: 2, clock: (hz) => `${count(hz)} Hz`, dot: false, title: `at ${moment(one.t)}` })));
  return found;
}

function showAsset(asset) {
  lastAsset = asset;
  const place = $("one");
  const focused = place.contains(document.activeElement) ? document.activeElement.id : null;
  const [time, error] = left(asset);
  const points = asset[stretch];
  const children = [
    make("p", {}, make("a", { href: "#/", id: "back" }, "← All machines")),
    make("div", { class: "title" }, make("h2", { id: "asset", tabindex: "-1" }, asset.name), state(asset.state),
      asset.alert_state === "normal" ? null : make("span", { class: "fine" }, `alert ${asset.alert_state}`)),
    make("div", { class: "facts" }, bar(asset.health, asset.state),
      make("span", {}, `${time === "–" ? "hours left not known" : `${time} left`}${error ? ` (${error})` : ""}`),
      make("span", {}, asset.score === null ? "no score yet" : `score ${asset.score.toFixed(2)} (limit 1)`)),
    make("p", { class: "fine" }, `class ${asset.class}, life ${asset.life + 1}, ` +
      `${asset.judged_by ? `judged by release ${asset.judged_by}` : "judged by this device's own models"}; ` +
      `as of ${moment(asset.t)}, ${age(asset)}`),
  ];
  if (points) {
    const width = Math.max(240, Math.min(560, (place.clientWidth || 700) / (window.innerWidth > 760 ? 3 : 1) - 40));
    const clock = clockFor(points.t);
    const most = Math.max(...points.rul_h.map((value) => value ?? 0));
    children.push(choice(), make("div", { class: "plots" },
      plot("Health", points.t, points.health, { top: 1, digits: 1, width, clock }),
      plot("Score", points.t, points.score, { limit: 1, digits: 1, width, clock }),
      plot("Hours left", points.t, points.rul_h, { top: most * 1.05, digits: most < 10 ? 1 : 0, width, clock })));
  } else {
    children.push(make("p", { class: "fine" }, "Not plotted: there are more machines than are plotted."));
  }
  const reasons = make("div", { class: "card" }, make("h3", {}, "What speaks against it"));
  if (asset.report.why.length) {
    reasons.append(make("ul", { class: "list" }, ...asset.why.map(because)));
  } else {
    reasons.append(make("p", { class: "fine" }, asset.score === null ? "Its own beginning is not known yet." : "Nothing: it is well within its limit."));
  }
  const lacks = asset.report.lacks ?? [];
  if (lacks.length) reasons.append(make("p", { class: "fine" }, `Judged without: ${lacks.join(", ")}`));
  children.push(reasons, ...signals(asset, place), make("div", { class: "panels two" },
    counted("Reports with a mark", ["channel and reason", "reports"], Object.entries(asset.marked), "none since the agent started"),
    alerts("Its alerts", asset.alerts, false)));
  place.replaceChildren(...children);
  if (focused) document.getElementById(focused)?.focus();
}

// -- asking -----------------------------------------------------------------------------------

function chosen() {
  const match = /^#\/asset\/(.+)$/.exec(location.hash);
  if (!match) return null;
  try { return decodeURIComponent(match[1]); } catch { return null; }
}

async function ask(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  if (answer.status === 404) return null;
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

async function refresh() {
  try {
    const told = await ask("/v1/status.json");
    heardAt = Date.now();
    $("silent").hidden = true;
    put($("node"), told.node + told.site, [`${told.node} · ${told.site}`]);
    $("when").textContent = `as of ${new Date(1000 * told.at).toLocaleTimeString("en-GB")}`;
    showTroubles(told);
    showOverall(told);
    showAssets(told);
    showDevice(told);
    const name = chosen();
    if (name !== null) {
      const asset = await ask(`/v1/assets/${encodeURIComponent(name)}.json`);
      if (name !== chosen()) return;
      if (asset) showAsset(asset);
      else $("one").replaceChildren(make("p", {}, make("a", { href: "#/" }, "← All machines")),
        make("h2", { id: "asset", tabindex: "-1" }, "No machine of this name"));
    }
    document.body.dataset.ready = name ?? "all";
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof DOMException || /^\d+$/.test(error.message))) throw error;
    const since = heardAt === null ? "" : ` since ${new Date(heardAt).toLocaleTimeString("en-GB")}`;
    $("silent").textContent = `No answer from the agent${since}. What is shown is old.`;
    $("silent").hidden = false;
  }
}

let turn = null;
async function round() {
  clearTimeout(turn);
  if (!document.hidden) await refresh();
  clearTimeout(turn);
  turn = setTimeout(round, EVERY_MS);
}

async function route() {
  const name = chosen();
  $("all").hidden = $("last").hidden = $("device").hidden = name !== null;
  $("one").hidden = name === null;
  if (name === null) lastAsset = null;
  else $("one").replaceChildren(make("h2", { id: "asset", tabindex: "-1" }, name));
  await round();
  window.scrollTo(0, 0);
  if (name !== null) $("asset")?.focus();
}

addEventListener("hashchange", route);
addEventListener("resize", () => { if (lastAsset) showAsset(lastAsset); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) round(); });
if (chosen() !== null) route();
else round();
