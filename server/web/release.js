// One release: its card on the first page, and its own page.

import { get, path } from "./api.js";
import { bar, gauge } from "./charts.js";
import { h } from "./dom.js";
import { feed, standings } from "./lists.js";
import { STEPS, TROUBLE, UNDER_WAY, clock, count, devices, ended, moving, now, percent, span, stageTone, stepName, sum } from "./words.js";

const STAGES = ["draft", "staging", "production", "completed"];
/** Pace is judged over this long, once that much is known. */
const PACE_SECONDS = 600;
const LEAST_PACE_SECONDS = 60;
const samples = new Map();

/** Remembers how many devices were done when, to tell the pace. */
export function remember(releases) {
  for (const release of releases) {
    const seen = (samples.get(release.name) ?? []).filter((sample) => now() - sample.at < PACE_SECONDS);
    const done = release.devices.confirmed;
    if (seen.at(-1)?.at !== now()) seen.push({ at: now(), done });
    samples.set(release.name, seen);
  }
}

function pace(release) {
  const seen = samples.get(release.name) ?? [];
  const [first, last] = [seen[0], seen.at(-1)];
  if (first && last.at - first.at >= LEAST_PACE_SECONDS && last.done > first.done) {
    return (last.done - first.done) / (last.at - first.at);
  }
  return release.started_at && release.devices.confirmed ? release.devices.confirmed / Math.max(now() - release.started_at, 1) : 0;
}

/** When the stage is through, as far as that can be told. */
export function estimate(release, reach) {
  if (release.stage === "draft") return release.start_at ? `starts ${clock(release.start_at)}` : "not started";
  if (ended(release)) return release.ended_at ? `${release.stage} ${clock(release.ended_at)}` : release.stage;
  if (release.paused !== null) return "no end in sight while it is paused";
  const pending = reach?.pending ?? sum(release.devices, UNDER_WAY);
  if (reach && pending === 0) return `nobody is left in ${release.stage}`;
  const perSecond = pace(release);
  if (perSecond === 0) return "no estimate before the first device has confirmed";
  const left = pending / perSecond;
  return `${release.stage} ends in about ${span(left)} at this pace (${clock(now() + left)})`;
}

function track(release) {
  const at = release.stage === "aborted" ? -1 : STAGES.indexOf(release.stage);
  return h("ol", { class: "track", "aria-label": "Stages" }, STAGES.map((stage, index) => {
    const name = stage === "staging" ? `staging ${release.policy.staging_percent} %` : stage;
    const state = index < at ? "past" : index === at ? "here" : "ahead";
    return h("li", { class: state, "aria-current": state === "here" ? "step" : null }, name);
  }));
}

function rates(release) {
  const { good, bad, success_percent: success, error_percent: error } = release.results;
  const { success_percent: wanted, error_percent: allowed, min_confirmed: least, min_errors: errors } = release.policy;
  const failing = (error ?? 0) > allowed;
  const scale = Math.min(100, Math.max(allowed * 2, (error ?? 0) * 1.2, 1));
  const low = success !== null && success < wanted;
  return h("div", { class: "rates", "data-key": "rates" },
    h("div", {},
      h("p", {}, h("span", {}, "Success"), h("b", {}, success === null ? "–" : percent(success))),
      gauge(success ?? 0, wanted, 100, low ? "warn" : "good", `Success ${success === null ? "not known yet" : percent(success)}, wanted ${wanted} %`),
      h("p", { class: "muted" }, `wanted ${wanted} % of at least ${count(least)}; ${count(good)} confirmed`)),
    h("div", {},
      h("p", {}, h("span", {}, "Errors"), h("b", { class: failing ? "text-bad" : null }, error === null ? "–" : percent(error))),
      gauge(error ?? 0, allowed, scale, failing ? "bad" : "warn", `Errors ${error === null ? "not known yet" : percent(error)}, allowed ${allowed} %`),
      h("p", { class: "muted" }, `pauses above ${allowed} %, from ${count(errors)} on; ${count(bad)} so far`)));
}

function steps(release, reach) {
  const parts = STEPS.map(([step, tone, name]) => ({ value: release.devices[step] ?? 0, tone, name }));
  const known = parts.reduce((total, part) => total + part.value, 0);
  const waiting = Math.max((reach?.eligible ?? known) - known, 0);
  const shown = parts.filter((part) => part.value > 0);
  const words = shown.map((part) => `${count(part.value)} ${part.name}`);
  if (waiting > 0) words.push(`${count(waiting)} to come`);
  return h("div", {},
    bar([...parts, { value: waiting, tone: "empty", name: "to come" }], known + waiting, words.join(", ") || "no devices yet"),
    h("ul", { class: "legend" },
      shown.map((part) => h("li", {}, h("i", { class: `dot tone-${part.tone}` }), `${count(part.value)} ${part.name}`)),
      waiting > 0 && h("li", {}, h("i", { class: "dot tone-empty" }), `${count(waiting)} to come`),
      known + waiting === 0 && h("li", { class: "muted" }, "no device yet")));
}

const ACTS = {
  start: ["Start", "primary"], promote: ["Promote to 100 %", ""], complete: ["Complete", ""],
  pause: ["Pause", ""], resume: ["Resume", "primary"], abort: ["Abort…", "danger"],
};

// One button that changes its word, so that the focus stays on it.
const HALT = new Set(["pause", "resume"]);

function acts(release) {
  if (ended(release)) return [];
  if (release.stage === "draft") return ["start", "abort"];
  if (release.paused !== null) return ["resume", "abort"];
  return ["pause", release.stage === "staging" ? "promote" : "complete", "abort"];
}

/** What an operator may do; a viewer sees no button. */
export function buttons(release, may) {
  if (!may || acts(release).length === 0) return null;
  return h("div", { class: "buttons", "data-key": "buttons" }, acts(release).map((act) => h("button", {
    type: "button", class: ACTS[act][1], "data-key": HALT.has(act) ? "halt" : act, "data-act": "turn", "data-turn": act, "data-release": release.name,
    "aria-label": `${ACTS[act][0].replace("…", "")}: release ${release.name}`,
  }, ACTS[act][0])));
}

/** The release at a glance. */
export function card(release, reach, may, level = "h3") {
  return h("article", { class: `card release is-${release.status}`, "data-key": `release ${release.name}`, "data-status": release.status },
    h("div", { class: "title" },
      h(level, {}, h("a", { href: `#${path("release", release.name)}` }, release.name)),
      h("span", { class: `badge badge-${stageTone(release.status)}` }, release.status)),
    h("p", { class: "muted" }, `version ${release.version}`, release.group ? `, group ${release.group}` : ", every device of its models",
      release.withdrawn ? ", its artifact is withdrawn" : ""),
    release.paused !== null && h("p", { class: "notice", "data-key": "notice" }, h("b", {}, "Paused: "), release.paused),
    track(release), steps(release, reach),
    moving(release) || sum(release.devices, ["confirmed", ...TROUBLE]) > 0 ? rates(release) : null,
    h("p", { class: "eta" }, estimate(release, reach)),
    buttons(release, may));
}

/** The page of a release: `#/release/NAME`. */
export async function page(name, may) {
  const release = await get(path("releases", name));
  remember([release]);
  const wanted = STEPS.filter(([step]) => (release.devices[step] ?? 0) > 0).map(([step]) => step).reverse();
  const [lists, past] = await Promise.all([
    Promise.all(wanted.map((step) => get(`${path("releases", name, "devices")}?limit=50&step=${step}`))),
    get(`/activity?limit=60&release=${encodeURIComponent(name)}`),
  ]);
  return [
    h("p", { class: "crumb" }, h("a", { href: "#/" }, "Overview"), " › release"),
    h("div", { class: "columns" },
      h("div", {},
        card(release, release.reach, may, "h1"),
        h("section", { class: "card", "aria-label": "Devices" }, h("h2", {}, "Devices"),
          h("p", { class: "muted" }, `${devices(release.reach.eligible)} of its models and group, ${count(release.reach.in_stage)} in this stage, `
            + `${count(release.reach.running)} run it or something later, ${count(release.reach.lost)} lost.`),
          wanted.map((step, index) => h("details", { "data-key": step, open: TROUBLE.includes(step) },
            h("summary", {}, `${stepName(step)} (${count(release.devices[step])})`),
            standings(lists[index].devices, release.name, may),
            lists[index].next !== null && h("p", { class: "muted" }, "The first 50 by name; the API has them all."))))),
      h("section", { class: "card", "aria-label": "Activity" }, h("h2", {}, "Activity"), feed(past.activity))),
  ];
}
