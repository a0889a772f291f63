// The page itself: which view is shown, when it is drawn again, and what buttons do.

import { Live, Refused, get, path, post, token } from "./api.js";
import { h, patch } from "./dom.js";
import { page as devicePage } from "./device.js";
import { devicesPage, errorsPage } from "./lists.js";
import { page as overviewPage } from "./overview.js";
import { page as releasePage } from "./release.js";

/** Asked this often in any case: turns of releases come with no frame. */
const POLL_MS = 10_000;
/** After a frame, at most this often. */
const FRAME_MS = 1500;
const MAX_WORDS = 5000;

const main = document.getElementById("main");
const byId = (id) => document.getElementById(id);
const words = new Map();
let who = null;
let drawn = 0;
let drawing = null;
let timer = 0;
let saying = 0;
let pendingAbort = "";

const may = () => who !== null && who.role !== "viewer";

function say(text) {
  byId("said").textContent = text;
  clearTimeout(saying);
  saying = setTimeout(() => { byId("said").textContent = ""; }, 8000);
}

function setLine(state, text) {
  const line = byId("line");
  line.dataset.state = state;
  if (line.textContent !== text) line.textContent = text;
}

const live = new Live((frame) => {
  for (const word of frame.devices ?? []) {
    const known = words.get(word.device);
    // A step without a phase must not hide how far the device is.
    words.delete(word.device);
    words.set(word.device, word.phase ? word : { ...known, ...word, phase: null, percent: null });
  }
  for (const device of words.keys()) {
    if (words.size <= MAX_WORDS) break;
    words.delete(device);
  }
  soon(FRAME_MS);
}, (on) => {
  if (on) setLine("on", "live");
  else setLine("poll", "every 10 s");
});

function route() {
  const [page, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  const [name = ""] = rest;
  if (page === "device" && name) return { nav: "devices", title: name, draw: () => devicePage(name, may(), words.get(name)) };
  if (page === "devices") return { nav: "devices", title: "Devices", draw: () => devicesPage(name) };
  if (page === "release" && name) return { nav: "overview", title: name, draw: () => releasePage(name, may()) };
  if (page === "errors" && name) return { nav: "overview", title: `Errors: ${name}`, draw: () => errorsPage(name, may()) };
  return { nav: "overview", title: "Overview", draw: () => overviewPage(may(), words) };
}

/** Draws the view again in at most `wait` milliseconds, and not more often than frames ask for. */
function soon(wait) {
  const at = Math.max(Date.now(), Math.min(Date.now() + wait, drawn + POLL_MS));
  clearTimeout(timer);
  timer = setTimeout(draw, Math.max(at - Date.now(), drawn + FRAME_MS - Date.now(), 0));
}

async function draw() {
  clearTimeout(timer);
  if (who === null || drawing) return;
  const hash = location.hash;
  drawing = hash;
  try {
    const nodes = await route().draw();
    if (location.hash === hash) patch(main, nodes);
    if (byId("line").dataset.state === "off") setLine("poll", "every 10 s");
  } catch (error) {
    failed(error);
  } finally {
    drawing = null;
    drawn = Date.now();
    timer = setTimeout(draw, location.hash === hash ? POLL_MS : 0);
  }
}

function failed(error) {
  if (error instanceof Refused && (error.status === 401 || (error.status === 403 && who === null))) return askToken(error.message);
  if (error instanceof Refused && error.status === 404) {
    return patch(main, [h("section", { class: "card empty" }, h("h1", {}, "Not here"), h("p", {}, error.message), h("p", {}, h("a", { href: "#/" }, "To the overview")))]);
  }
  if (error instanceof Refused) return say(`${error.code}: ${error.message}`);
  console.error(error);
  setLine("off", "no answer; trying again");
}

function askToken(why) {
  who = null;
  live.stop();
  byId("token-why").textContent = token.get() ? `The server did not take that token: ${why}` : why;
  token.forget();
  if (!byId("token").open) byId("token").showModal();
}

async function enter() {
  try {
    who = await get("/whoami");
  } catch (error) {
    failed(error);
    if (!(error instanceof Refused)) timer = setTimeout(enter, POLL_MS);
    return;
  }
  byId("who").textContent = `${who.name} (${who.role})`;
  byId("forget").hidden = !token.get();
  if (byId("token").open) byId("token").close();
  live.start();
  turned(false);
}

async function act(work, done) {
  try {
    await work();
    say(done);
  } catch (error) {
    failed(error);
  }
  drawn = 0;
  await draw();
}

const turn = (release, word) => act(() => post(path("releases", release, word)), `Release ${release}: ${word} done.`);

const acts = {
  skip: () => main.focus(),
  theme: () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("otad-theme", root.dataset.theme);
  },
  forget: () => {
    token.forget();
    location.reload();
  },
  turn: ({ release, turn: word }) => {
    if (word !== "abort") return turn(release, word);
    pendingAbort = release;
    byId("sure-title").textContent = `Abort ${release}?`;
    byId("sure-text").textContent = "No device begins it any more, those that wait are cancelled, and it cannot be started again. Devices that run it keep it.";
    byId("sure").showModal();
    return undefined;
  },
  unsure: () => byId("sure").close(),
  sure: () => {
    byId("sure").close();
    return turn(pendingAbort, "abort");
  },
  decide: ({ release, device, decide }) => act(() => post(path("releases", release, "devices", device, decide)), `${device}: ${decide} done.`),
};

document.addEventListener("click", (event) => {
  const target = event.target.closest?.("[data-act]");
  if (!target) return;
  event.preventDefault();
  acts[target.dataset.act]?.(target.dataset);
});

document.addEventListener("submit", (event) => {
  event.preventDefault();
  if (event.target.id === "token-form") {
    token.set(byId("token-field").value.trim());
    byId("token-field").value = "";
    enter();
  } else if (event.target.id === "find") {
    location.hash = path("device", byId("find-field").value.trim());
  }
});

byId("token").addEventListener("cancel", (event) => event.preventDefault());

function turned(byReader = true) {
  const { nav, title } = route();
  document.title = `${title} · otad fleet`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === nav) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (byReader) {
    main.focus();
    scrollTo(0, 0);
  }
  draw();
}

addEventListener("hashchange", () => turned());
document.documentElement.dataset.theme = localStorage.getItem("otad-theme") ?? "";
enter();
