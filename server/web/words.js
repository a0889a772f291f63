// How things are called and counted on the page.

/** Steps of a device in a release, in the order of its life, with the tone they are drawn in. */
export const STEPS = [
  ["confirmed", "good", "confirmed"],
  ["on-trial", "late", "on trial"],
  ["rebooting", "late", "rebooting"],
  ["installed", "late", "installed"],
  ["installing", "busy", "installing"],
  ["downloading", "busy", "downloading"],
  ["offered", "early", "offered"],
  ["silent", "warn", "silent since reboot"],
  ["rolled-back", "bad", "rolled back"],
  ["failed", "bad", "failed"],
  ["cancelled", "rest", "cancelled"],
];
const STEP = new Map(STEPS.map(([step, tone, name]) => [step, { tone, name }]));
export const UNDER_WAY = ["offered", "downloading", "installing", "installed", "rebooting", "on-trial"];
export const TROUBLE = ["failed", "rolled-back", "silent"];

const TURNS = {
  started: "early", scheduled: "early", promoted: "busy", resumed: "busy", paused: "warn", completed: "good", aborted: "bad",
};
const STAGES = { draft: "rest", staging: "busy", production: "busy", completed: "good", aborted: "bad", paused: "warn" };
export const CLASSES = {
  network: "The line or the server broke off",
  verification: "The bundle was not what was signed, or not for this device",
  write: "The flash or disk could not be written",
  boot: "The new system did not start",
  health: "The new system started and was not well",
  operator: "A person cancelled or denied it",
  other: "Something else",
};

export const stepName = (step) => STEP.get(step)?.name ?? step;
export const stepTone = (step) => STEP.get(step)?.tone ?? TURNS[step] ?? "rest";
export const stageTone = (stage) => STAGES[stage] ?? "rest";
export const ended = (release) => release.stage === "completed" || release.stage === "aborted";
export const moving = (release) => release.stage === "staging" || release.stage === "production";
export const sum = (counts, steps) => steps.reduce((total, step) => total + (counts[step] ?? 0), 0);

const NUMBER = new Intl.NumberFormat("en");
export const count = (number) => NUMBER.format(number ?? 0);
export const devices = (number) => `${count(number)} ${number === 1 ? "device" : "devices"}`;
export const percent = (value) => `${Number(value.toFixed(1))} %`;

export const now = () => Math.floor(Date.now() / 1000);

/** A span of time in its largest unit. */
export function span(seconds) {
  for (const [unit, name] of [[86_400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= unit * 1.5) return `${Math.round(seconds / unit)} ${name}`;
  }
  return `${Math.max(0, Math.round(seconds))} s`;
}

export const ago = (at) => (at ? (now() - at < 5 ? "just now" : `${span(now() - at)} ago`) : "never");
export const clock = (at) => new Date(at * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
export const short = (text, length = 14) => (text && text.length > length ? `${text.slice(0, length)}…` : (text ?? ""));
