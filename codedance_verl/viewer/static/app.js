// Keys, zoom and the live list. Every page works without this file; it makes no markup of what a model wrote but for
// rows that the server has escaped.

const body = document.body;
const find = (selector) => document.querySelector(selector);
const say = (text) => { find("#said").textContent = text; };
const follow = (selector) => { const link = find(selector); if (link) link.click(); return Boolean(link); };

// keys

function step(by) {
  const places = [...document.querySelectorAll("[data-row], [data-turn]")];
  if (!places.length) return;
  const focused = document.activeElement;
  let at = places.indexOf(focused);
  if (at < 0) at = places.findIndex((place) => place.contains(focused));
  const next = places[at < 0 ? (by > 0 ? 0 : places.length - 1) : Math.min(places.length - 1, Math.max(0, at + by))];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

function mark() {
  if (!body.dataset.trajectory) return;
  sessionStorage.setItem("marked", body.dataset.trajectory);
  say("marked; open another one and press d to compare");
}

function compare() {
  const marked = sessionStorage.getItem("marked");
  if (body.dataset.trajectory && marked && marked !== body.dataset.trajectory) {
    location.assign(`/t/${encodeURIComponent(marked)}/against/${encodeURIComponent(body.dataset.trajectory)}`);
  } else if (!follow("[data-against]")) {
    say("mark another trajectory with m first");
  }
}

function up() {
  const open = find("dialog[open]");
  if (open) open.close();
  else follow("[rel=up]");
}

const KEYS = {
  j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
  n: () => follow("[rel=next]"), p: () => follow("[rel=prev]"), g: () => follow("[data-group]"),
  e: () => follow("[data-export]"), r: () => location.assign("/"), l: () => follow("#live"),
  m: mark, d: compare, "/": () => find("#search")?.focus(), "?": () => find("#help").showModal(), Escape: up,
};
const SCROLLS = new Set(["ArrowDown", "ArrowUp"]);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const field = event.target.closest("input, select, textarea");
  if (field) {
    if (event.key === "Escape") { field.blur(); find("#main").focus(); }
    return;
  }
  if (find("dialog[open]")) return; // Escape closes it by itself
  if (SCROLLS.has(event.key) && !event.target.closest("[data-row]")) return;
  const action = KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

find("#help-button")?.addEventListener("click", () => find("#help").showModal());

// zoom

document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-zoom]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const small = link.querySelector("img");
  const large = find("#zoomed");
  large.src = link.href;
  large.alt = small.alt;
  large.className = small.naturalWidth < 400 ? "small" : "";
  find("#zoom").showModal();
});

// the run as it is written

// A browser opens six connections to a host for all its tabs, so a page listens only while it is seen. The server says
// what is newest at the start of each stream: what came while the page was hidden is not missed.
function listen(heard) {
  let source = null;

  function close() {
    source?.close();
    source = null;
  }

  function look() {
    if (document.hidden) { close(); return; }
    if (source && source.readyState !== EventSource.CLOSED) return;
    source = new EventSource("/events");
    source.onmessage = (event) => heard(JSON.parse(event.data).newest);
  }

  document.addEventListener("visibilitychange", look);
  look();
  return () => { document.removeEventListener("visibilitychange", look); close(); };
}

function tail() {
  const button = find("#live");
  let newest = Number(body.dataset.newest);
  let stop = null;
  let busy = false;
  let again = false;

  async function fetchRows() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const answer = await fetch(`${body.dataset.rows}&after=${newest}`);
      if (!answer.ok) return;
      const found = await answer.json();
      newest = found.newest;
      find("#total").textContent = found.total.toLocaleString("en-US");
      if (found.count) {
        const rows = find("#rows");
        if (!("paged" in body.dataset)) rows.insertAdjacentHTML("afterbegin", found.html);
        while (rows.children.length > 500) rows.lastElementChild.remove();
        say(`${found.count} new trajectories`);
      }
    } finally {
      busy = false;
      if (again) { again = false; fetchRows(); }
    }
  }

  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    if (on) stop = listen((latest) => { if (latest > newest) fetchRows(); });
    else { stop(); stop = null; }
    say(on ? "following the run" : "no longer following");
  });
}

function reloadWhenMore() {
  let waiting = false;
  let again = false;

  async function reload() {
    const answer = await fetch(location.href);
    if (!answer.ok) return;
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const focused = document.activeElement?.getAttribute("href");
    find("#main").replaceWith(next.querySelector("#main"));
    body.dataset.newest = next.body.dataset.newest;
    if (focused) [...document.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
  }

  function soon() {
    if (waiting) { again = true; return; }
    waiting = true;
    setTimeout(async () => {
      again = false; // what was heard until now is on the page that is fetched
      try {
        await reload();
      } finally {
        waiting = false;
        if (again) soon();
      }
    }, 1000);
  }

  listen((latest) => { if (latest > Number(body.dataset.newest) || find("[data-indexing]")) soon(); });
}

if (body.dataset.live === "rows") tail();
else if (body.dataset.live === "page") reloadWhenMore();
