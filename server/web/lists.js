// Lists that more than one page shows: the feed, devices of a release, devices of the fleet, devices with one kind of error.

import { get, path } from "./api.js";
import { h } from "./dom.js";
import { CLASSES, TROUBLE, ago, clock, count, ended, short, stepName, stepTone } from "./words.js";

export const deviceLink = (name) => h("a", { href: `#${path("device", name)}` }, name);
export const releaseLink = (name) => h("a", { href: `#${path("release", name)}` }, name);
export const when = (at) => h("time", { datetime: new Date(at * 1000).toISOString(), title: clock(at) }, ago(at));

/** Puts neighbours that say the same of many devices into one line. */
function together(rows) {
  const lines = [];
  for (const row of rows) {
    const last = lines.at(-1);
    const same = last && row.device !== null && last.row.device !== null
      && last.row.release === row.release && last.row.after === row.after && last.row.code === row.code;
    if (same) last.devices.add(row.device);
    else lines.push({ row, devices: new Set(row.device === null ? [] : [row.device]) });
  }
  return lines;
}

/** What happened, newest first; screen readers hear what is added. */
export function feed(rows, lines = 30) {
  if (rows.length === 0) return h("p", { class: "muted" }, "Nothing has happened yet.");
  return h("div", { class: "feed", role: "log", "aria-live": "polite", "aria-label": "Activity, newest first", tabindex: "0" },
    h("ol", {}, together(rows).slice(0, lines).map(({ row, devices }) => h("li", { "data-key": `event ${row.id}`, class: row.device === null ? "turn" : null },
      h("i", { class: `dot tone-${stepTone(row.after)}` }),
      h("div", {},
        row.device === null ? [h("b", {}, "Release "), releaseLink(row.release), ` ${row.after}`]
          : [deviceLink(row.device), devices.size > 1 ? ` and ${count(devices.size - 1)} more` : "", ` ${stepName(row.after)}`,
            h("span", { class: "muted" }, ` (${row.version})`)],
        row.code || row.message ? h("p", { class: "muted" }, [row.code, row.message].filter(Boolean).join(": ")) : null),
      when(row.at)))));
}

/** Devices of one release. */
export function standings(members, release, may) {
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, ["Device", "Since", "From", "What it said", may ? "" : null].filter((name) => name !== null)
      .map((name) => h("th", { scope: "col" }, name || h("span", { class: "hidden" }, "Actions"))))),
    h("tbody", {}, members.map((member) => h("tr", { "data-key": member.device },
      h("th", { scope: "row" }, deviceLink(member.device)),
      h("td", {}, when(member.since)),
      h("td", {}, member.from_version ?? "–"),
      h("td", {}, [member.code, member.message].filter(Boolean).join(": ") || "–",
        member.attempts > 1 ? h("span", { class: "muted" }, ` (try ${count(member.attempts)})`) : null,
        member.next_try_at ? h("span", { class: "muted" }, `; again ${clock(member.next_try_at)}`) : null),
      may ? h("td", {}, decisions(member, release)) : null)))));
}

/** Retry and deny, where they make sense. */
export function decisions(member, release) {
  const button = (act, name) => h("button", {
    type: "button", class: "small", "data-act": "decide", "data-decide": act, "data-release": release, "data-device": member.device,
    "aria-label": `${name}: ${member.device} in ${release}`,
  }, name);
  if (member.denied) return [h("span", { class: "muted" }, "denied "), button("retry", "Allow again")];
  if (TROUBLE.includes(member.step) || member.step === "cancelled") return [button("retry", "Retry now"), " ", button("deny", "Deny")];
  return [];
}

/** `#/errors/CLASS`: the devices behind a kind of error. */
export async function errorsPage(wanted, may) {
  const { releases } = await get("/releases");
  const hit = releases.filter((release) => (release.errors[wanted] ?? 0) > 0);
  const sections = await Promise.all(hit.map(async (release) => {
    const steps = [...TROUBLE, "cancelled"].filter((step) => (release.devices[step] ?? 0) > 0);
    const lists = await Promise.all(steps.map((step) => get(`${path("releases", release.name, "devices")}?limit=1000&step=${step}`)));
    const members = lists.flatMap((list) => list.devices).filter((member) => member.class === wanted);
    return h("section", { class: "card", "data-key": release.name, "aria-label": `Release ${release.name}` },
      h("h2", {}, "Release ", releaseLink(release.name), ended(release) ? ` (${release.stage})` : ""),
      members.length > 0 ? standings(members, release.name, may)
        : h("p", { class: "muted" }, `${count(release.errors[wanted])} counted; these devices are being tried again.`));
  }));
  return [
    h("p", { class: "crumb" }, h("a", { href: "#/" }, "Overview"), " › errors"),
    h("h1", {}, `Errors: ${wanted}`),
    h("p", { class: "muted" }, CLASSES[wanted] ?? ""),
    sections.length > 0 ? sections : h("p", {}, "No device stands with such an error."),
  ];
}

/** `#/devices` and `#/devices/AFTER`: the fleet by name. */
export async function devicesPage(after) {
  const { devices, next } = await get(`/devices?limit=100${after ? `&after=${encodeURIComponent(after)}` : ""}`);
  return [
    h("h1", {}, "Devices"),
    h("form", { id: "find", class: "find" },
      h("label", { for: "find-field" }, "Name of a device"),
      h("input", { id: "find-field", type: "search", autocomplete: "off", spellcheck: "false", required: true }),
      h("button", { type: "submit" }, "Open")),
    devices.length === 0 ? nobody() : h("div", { class: "card scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, ["Device", "Model", "Version", "Presence", "Seen", "Last report"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, devices.map((device) => h("tr", { "data-key": device.device },
        h("th", { scope: "row" }, deviceLink(device.device)),
        h("td", {}, device.compatible ?? "–"), h("td", {}, device.version ?? "–"),
        h("td", {}, h("i", { class: `dot tone-${device.presence === "lost" ? "bad" : "good"}` }), device.presence),
        h("td", {}, device.last_seen ? when(device.last_seen) : "never"),
        h("td", {}, device.last_report ? `${device.last_report.outcome} ${short(device.last_report.code ?? "", 24)}` : "–")))))),
    h("p", { class: "buttons" },
      after && h("a", { class: "button", href: "#/devices" }, "First page"),
      next !== null && h("a", { class: "button", href: `#${path("devices", next)}` }, "Next page")),
  ];
}

/** The next step on a server without devices. */
export const nobody = () => h("section", { class: "card empty", "aria-label": "First device" },
  h("h2", {}, "No device has asked yet"),
  h("p", {}, "Name this server in ", h("code", {}, "/etc/otad/otad.toml"), " of a device; it appears here with its first question."),
  h("pre", { tabindex: "0" }, `[server]\nurl = "${location.origin}"`));
