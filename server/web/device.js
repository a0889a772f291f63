// One device: what it runs, why it gets no update, what happened to it, and what it said last.

import { get, path } from "./api.js";
import { bar } from "./charts.js";
import { h } from "./dom.js";
import { decisions, feed, releaseLink, when } from "./lists.js";
import { clock, count, short, span, stepName, stepTone } from "./words.js";

const fact = (name, value) => (value === null || value === undefined || value === "" ? null
  : h("div", {}, h("dt", {}, name), h("dd", {}, value)));

function facts(device) {
  return h("dl", { class: "facts" },
    fact("Model", device.compatible), fact("Version", device.version), fact("Sequence", device.sequence),
    fact("Release", device.release ? h("code", { title: device.release }, short(device.release)) : null),
    fact("State", device.state), fact("Boot", device.boot_id ? h("code", { title: device.boot_id }, short(device.boot_id)) : null),
    fact("Last seen", device.last_seen ? when(device.last_seen) : "never"), fact("First seen", device.first_seen ? when(device.first_seen) : null),
    Object.entries(device.attributes ?? {}).map(([name, value]) => fact(name, value)));
}

/** How far a device is right now. */
export function progress(word) {
  const done = word.percent ?? 0;
  const name = word.phase ?? (word.step ? stepName(word.step) : "");
  return h("div", { class: "progress" },
    h("span", {}, name), bar([{ value: done, tone: "busy", name }, { value: 100 - done, tone: "empty", name: "to come" }], 100, `${name} ${done} %`, 10),
    h("span", {}, word.percent === null || word.percent === undefined ? "" : `${word.percent} %`));
}

function why(device) {
  return h("section", { class: "card", "aria-label": "Why it gets no update, or which" },
    h("h2", {}, device.why.some((reason) => reason.offered) ? "Its next update" : "Why it gets no update"),
    h("ul", { class: "why" }, device.why.map((reason) => h("li", {},
      h("i", { class: `dot tone-${reason.offered ? "good" : "rest"}` }),
      h("div", {}, reason.release ? ["Release ", releaseLink(reason.release), reason.version ? ` (${reason.version})` : "", ": "] : null,
        h("b", {}, reason.because))))));
}

function standing(device, may) {
  if (device.releases.length === 0) return null;
  return h("section", { class: "card", "aria-label": "Releases" }, h("h2", {}, "Releases"),
    h("ul", { class: "why" }, device.releases.filter((row) => row.release).map(({ release, standing: member }) => h("li", { "data-key": release },
      h("i", { class: `dot tone-${stepTone(member.step)}` }),
      h("div", {}, releaseLink(release), ": ", h("b", {}, stepName(member.step)), " ", when(member.since),
        h("p", { class: "muted" }, `${count(member.attempts)} ${member.attempts === 1 ? "try" : "tries"}`,
          member.code ? `; ${[member.code, member.message].filter(Boolean).join(": ")}` : "",
          member.next_try_at ? `; again ${clock(member.next_try_at)}` : ""),
        may ? decisions(member, release) : null)))));
}

function groups(device) {
  if (device.groups.length === 0) return null;
  return h("section", { class: "card", "aria-label": "Groups" }, h("h2", {}, "Groups"),
    h("ul", { class: "why" }, device.groups.map((group) => h("li", {}, h("i", { class: `dot tone-${group.member ? "good" : "empty"}` }),
      h("div", {}, h("b", {}, group.group), group.member ? " " : " not: ", group.because)))));
}

function lastReport(reports) {
  const [last] = reports;
  if (!last) return h("section", { class: "card", "aria-label": "Last report" }, h("h2", {}, "Last report"), h("p", { class: "muted" }, "It has reported nothing yet."));
  return h("section", { class: "card", "aria-label": "Last report" }, h("h2", {}, "Last report"),
    h("p", {}, h("b", {}, last.outcome), last.code ? [" ", h("code", {}, last.code)] : null, " ", when(last.received_at)),
    last.message ? h("p", {}, last.message) : null,
    h("dl", { class: "facts" }, fact("Version", last.version), fact("From", last.from_version), fact("Phase", last.phase), fact("Slot", last.slot),
      fact("Took", last.duration_ms ? span(last.duration_ms / 1000) : null),
      fact("Fetched", last.bytes_fetched ? `${count(last.bytes_fetched)} bytes` : null)),
    last.log?.length ? [h("h3", {}, "Its log"), h("pre", { class: "log", tabindex: "0", "aria-label": "Log of the last report" }, last.log.join("\n"))]
      : h("p", { class: "muted" }, "It came without a log."));
}

/** `#/device/NAME`; `word` is what the WebSocket said last. */
export async function page(name, may, word) {
  const [device, { reports }] = await Promise.all([get(path("devices", name)), get(`/reports?device=${encodeURIComponent(name)}`)]);
  const live = word ?? device.live;
  return [
    h("p", { class: "crumb" }, h("a", { href: "#/devices" }, "Devices"), " › device"),
    h("div", { class: "title" }, h("h1", {}, device.device),
      h("span", { class: `badge badge-${device.presence === "lost" ? "bad" : "good"}` }, device.presence)),
    h("div", { class: "columns" },
      h("div", {},
        h("section", { class: "card", "aria-label": "What it is" }, facts(device), live?.phase ? progress(live) : null),
        why(device), standing(device, may), lastReport(reports)),
      h("div", {},
        h("section", { class: "card", "aria-label": "History" }, h("h2", {}, "History"), feed(device.history, 50)), groups(device))),
  ];
}
