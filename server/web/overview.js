// The first page: how the fleet is, what moves, and what needs a person.

import { get, path } from "./api.js";
import { bar, days } from "./charts.js";
import { progress } from "./device.js";
import { h } from "./dom.js";
import { deviceLink, feed, nobody, releaseLink } from "./lists.js";
import { card, remember } from "./release.js";
import { CLASSES, TROUBLE, UNDER_WAY, count, devices, ended, moving, now, percent, span, stepName, sum } from "./words.js";

/** What needs a look at the whole fleet is asked this often. */
const SLOW_SECONDS = 30;
const DAY = 86_400;
const SHOWN_DAYS = 14;
const MAX_VERSIONS = 7;
const MAX_CARDS = 6;
const MAX_LIVE = 8;
const LOST_PAGES = 2;

const slow = { at: 0, of: "", reach: new Map(), lost: [], trouble: [], statistics: null };

async function lookAround(fleet, releases) {
  // A turn of a release changes its reach at once.
  const of = releases.map((release) => `${release.name} ${release.status}`).join();
  if (now() - slow.at < SLOW_SECONDS && slow.of === of) return;
  Object.assign(slow, { at: now(), of });
  const active = releases.filter((release) => !ended(release)).slice(0, MAX_CARDS);
  const [reach, lost, trouble, statistics] = await Promise.all([
    Promise.all(active.map(async (release) => [release.name, (await get(path("releases", release.name))).reach])),
    fleet.lost > 0 ? lostDevices() : [],
    Promise.all(active.map(troubleOf)),
    get(`/statistics?from=${(Math.floor(now() / DAY) - SHOWN_DAYS + 1) * DAY}`),
  ]);
  Object.assign(slow, { reach: new Map(reach), lost, trouble: trouble.flat(), statistics });
}

async function lostDevices() {
  const lost = [];
  let after = "";
  for (let page = 0; page < LOST_PAGES; page += 1) {
    const list = await get(`/devices?limit=1000${after && `&after=${encodeURIComponent(after)}`}`);
    lost.push(...list.devices.filter((device) => device.presence === "lost").map((device) => device.device));
    if (list.next === null) break;
    after = list.next;
  }
  return lost;
}

/** Devices in trouble, those with the same code together. */
async function troubleOf(release) {
  const steps = TROUBLE.filter((step) => release.devices[step] > 0);
  const lists = await Promise.all(steps.map((step) => get(`${path("releases", release.name, "devices")}?limit=1000&step=${step}`)));
  const rows = new Map();
  for (const member of lists.flatMap((list) => list.devices)) {
    const key = `${release.name} ${member.step} ${member.code ?? ""}`;
    const row = rows.get(key) ?? { key, release: release.name, step: member.step, code: member.code, names: [] };
    row.names.push(member.device);
    rows.set(key, row);
  }
  return [...rows.values()];
}

const tile = (name, value, tone, note) => h("div", { class: `tile ${tone ? `tile-${tone}` : ""}` },
  h("dt", {}, name), h("dd", {}, count(value)), h("dd", { class: "muted" }, note));

function openNow(open) {
  const number = open.filter(moving).length;
  return number === 1 ? "1 open release" : `${count(number)} open releases`;
}

function counters(fleet, releases) {
  const open = releases.filter((release) => !ended(release));
  const bad = open.reduce((total, release) => total + sum(release.devices, TROUBLE), 0);
  return h("dl", { class: "tiles" },
    tile("Devices", fleet.devices, "", `ask every ${fleet.heartbeat_seconds} s`),
    tile("Online", fleet.online, fleet.devices > 0 ? "good" : "", fleet.devices > 0 ? percent((fleet.online / fleet.devices) * 100) : "nobody yet"),
    tile("Updating", fleet.updating, fleet.updating > 0 ? "busy" : "", openNow(open)),
    tile("In trouble", bad, bad > 0 ? "bad" : "", "failed, rolled back or silent"),
    tile("Lost", fleet.lost, fleet.lost > 0 ? "warn" : "", "missed three questions"));
}

function versions(fleet, releases) {
  const rows = new Map();
  const row = (version) => rows.get(version) ?? rows.set(version, { version, runs: 0, way: 0, bad: 0, wait: 0, trial: 0 }).get(version);
  for (const entry of fleet.versions) row(entry.version ?? "not told").runs += entry.devices;
  for (const release of releases.filter((release) => !ended(release) && release.stage !== "draft")) {
    const of = row(release.version);
    of.way += sum(release.devices, UNDER_WAY);
    of.bad += sum(release.devices, TROUBLE);
    of.trial += release.devices["on-trial"] ?? 0;
    of.wait += Math.max((slow.reach.get(release.name)?.pending ?? 0) - sum(release.devices, UNDER_WAY) - sum(release.devices, TROUBLE), 0);
  }
  const order = [...rows.values()].sort((a, b) => b.runs + b.way + b.wait - a.runs - a.way - a.wait);
  if (order.length === 0) return null;
  const most = Math.max(...order.map((of) => of.runs + of.way + of.bad + of.wait));
  const legend = [["good", "confirmed: runs it"], ["busy", "assigned: under way"], ["rest", "assigned: waiting"], ["bad", "assigned: in trouble"]];
  return h("section", { class: "card", "aria-label": "Versions" }, h("h2", {}, "Versions: confirmed and assigned"),
    h("ul", { class: "versions" }, order.slice(0, MAX_VERSIONS).map((of) => {
      const runs = Math.max(of.runs - of.trial, 0);
      const assigned = of.way + of.bad + of.wait;
      const text = `${count(runs)} confirmed${assigned > 0 ? `, ${count(assigned)} assigned` : ""}`;
      return h("li", { "data-key": of.version }, h("p", {}, h("b", {}, of.version), h("span", { class: "muted" }, text)),
        bar([{ value: runs, tone: "good", name: "confirmed" }, { value: of.way, tone: "busy", name: "under way" },
          { value: of.wait, tone: "rest", name: "waiting" }, { value: of.bad, tone: "bad", name: "in trouble" },
          { value: most - runs - assigned, tone: "none", name: "" }], most, `${of.version}: ${text}`));
    })),
    order.length > MAX_VERSIONS && h("p", { class: "muted" }, `and ${count(order.length - MAX_VERSIONS)} more versions`),
    h("ul", { class: "legend" }, legend.map(([tone, name]) => h("li", {}, h("i", { class: `dot tone-${tone}` }), name))));
}

function errors(releases) {
  const totals = new Map();
  for (const release of releases.filter((release) => !ended(release))) {
    for (const [name, number] of Object.entries(release.errors)) totals.set(name, (totals.get(name) ?? 0) + number);
  }
  const rows = [...totals].filter(([, number]) => number > 0).sort((a, b) => b[1] - a[1]);
  const most = rows[0]?.[1] ?? 1;
  return h("section", { class: "card", "aria-label": "Errors" }, h("h2", {}, "Top errors"),
    rows.length === 0 ? h("p", { class: "muted" }, "No device of an open release stands with an error.")
      : h("ul", { class: "versions" }, rows.map(([name, number]) => h("li", { "data-key": name },
        h("p", {}, h("a", { href: `#${path("errors", name)}` }, name), h("span", { class: "muted" }, devices(number))),
        bar([{ value: number, tone: "bad", name }, { value: most - number, tone: "none", name: "" }], most, `${name}: ${devices(number)}`),
        h("p", { class: "muted" }, CLASSES[name] ?? "")))));
}

function attention(fleet, releases) {
  const rows = [];
  for (const release of releases.filter((release) => release.paused !== null && !ended(release))) {
    rows.push({ key: `paused ${release.name}`, tone: "warn", text: ["Release ", releaseLink(release.name), " is paused: ", release.paused] });
  }
  for (const row of slow.trouble) {
    const [first] = row.names;
    const more = row.names.length > 1 ? [" and ", h("a", { href: `#${path("release", row.release)}` }, `${count(row.names.length - 1)} more`)] : "";
    rows.push({ key: row.key, tone: row.step === "silent" ? "warn" : "bad",
      text: [deviceLink(first), more, ` ${stepName(row.step)} in `, releaseLink(row.release), row.code ? [": ", h("code", {}, row.code)] : ""] });
  }
  if (fleet.lost > 0) {
    const names = slow.lost.slice(0, 5);
    const more = fleet.lost - names.length;
    rows.push({ key: "lost", tone: "warn", text: [`${devices(fleet.lost)} lost: `, names.map((name, index) => [index > 0 ? ", " : "", deviceLink(name)]),
      more > 0 ? [" and ", h("a", { href: "#/devices" }, `${count(more)} more`)] : ""] });
  }
  return h("section", { class: `card ${rows.length > 0 ? "attention" : ""}`, "aria-label": "Needs attention" },
    h("h2", {}, "Needs attention", rows.length > 0 ? h("span", { class: "badge badge-bad" }, count(rows.length)) : null),
    rows.length === 0 ? h("p", { class: "muted" }, "Nothing. No release is paused, no device failed, is silent or lost.")
      : h("ul", { class: "why" }, rows.map((row) => h("li", { "data-key": row.key }, h("i", { class: `dot tone-${row.tone}` }), h("div", {}, row.text)))));
}

function history() {
  const known = slow.statistics;
  if (!known || known.updates === 0) return null;
  const today = Math.floor(now() / DAY);
  const rows = Array.from({ length: SHOWN_DAYS }, (_, index) => {
    const day = (today - SHOWN_DAYS + 1 + index) * DAY;
    const [good, bad] = known.by_day[String(day)] ?? [0, 0];
    return { name: new Date(day * 1000).toISOString().slice(0, 10), good, bad };
  });
  const text = `${count(known.updates)} updates in ${SHOWN_DAYS} days, ${known.success_percent === null ? "none judged" : `${percent(known.success_percent)} confirmed`}`;
  const { p50, p99 } = known.duration_ms;
  return h("section", { class: "card", "aria-label": "Last days" }, h("h2", {}, `Last ${SHOWN_DAYS} days`),
    days(rows, text),
    h("p", { class: "axis muted" }, h("span", {}, rows[0].name), h("span", {}, "today")),
    h("p", { class: "muted" }, text, p50 ? `; half took up to ${span(p50 / 1000)}, 99 % up to ${span(p99 / 1000)}` : "", "."));
}

function underWay(words) {
  const rows = [...words.values()].filter((word) => word.phase && word.percent !== null && now() - word.at < 60).sort((a, b) => b.at - a.at);
  if (rows.length === 0) return null;
  return h("section", { class: "card", "aria-label": "Right now" }, h("h2", {}, "Right now"),
    h("ul", { class: "plain" }, rows.slice(0, MAX_LIVE).map((word) => h("li", { "data-key": word.device }, deviceLink(word.device), progress(word)))),
    rows.length > MAX_LIVE && h("p", { class: "muted" }, `and ${count(rows.length - MAX_LIVE)} more`));
}

const noRelease = () => h("section", { class: "card empty", "aria-label": "First release" },
  h("h2", {}, "No release yet"),
  h("p", {}, "Upload a signed bundle, then declare a release of it. It begins as a draft; this page starts it."),
  h("pre", { tabindex: "0" }, `curl --fail-with-body -H @header.txt -T release.otab -X POST \\\n  ${location.origin}/api/v1/artifacts\n`
    + `curl --fail-with-body -H @header.txt -d '{"name":"first","artifact":"SHA256"}' \\\n  ${location.origin}/api/v1/releases`),
  h("p", { class: "muted" }, h("code", {}, "header.txt"), " holds the line ", h("code", {}, "Authorization: Bearer TOKEN"),
    "; on a server without tokens leave it away. SHA256 is the ", h("code", {}, "sha256"), " of the first answer."));

/** `#/`; `words` is what the WebSocket said last of each device. */
export async function page(may, words) {
  const [fleet, { releases }, { activity }] = await Promise.all([get("/fleet"), get("/releases"), get("/activity?limit=100")]);
  remember(releases);
  await lookAround(fleet, releases);
  const open = releases.filter((release) => !ended(release));
  const past = releases.filter(ended);
  const cards = [...open, ...past.slice(0, Math.max(0, 2 - open.length))].slice(0, MAX_CARDS);
  return [
    h("h1", { class: "hidden" }, "Overview"),
    counters(fleet, releases),
    h("div", { class: "columns" },
      h("div", {},
        h("section", { "aria-label": "Releases", class: "releases" }, h("h2", {}, "Releases"),
          releases.length === 0 ? noRelease() : cards.map((release) => card(release, slow.reach.get(release.name), may)),
          releases.length > cards.length && h("p", { class: "muted" }, "Others: ",
            releases.filter((release) => !cards.includes(release)).slice(0, 20).map((release, index) => [index > 0 ? ", " : "", releaseLink(release.name)]))),
        fleet.devices === 0 ? nobody() : null,
        versions(fleet, releases), history()),
      h("div", {}, attention(fleet, releases), underWay(words), errors(releases),
        h("section", { class: "card", "aria-label": "Activity" }, h("h2", {}, "Activity"), feed(activity)))),
  ];
}
