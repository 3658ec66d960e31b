// The page: what the controls do, and the way of a frame from its source over the network to the canvas.
import { Compositor } from "./compositor.js";
import { place } from "./fitting.js";
import { Meter } from "./meter.js";
import { Network } from "./network.js";
import { hasAlpha, Recorder } from "./recorder.js";
import { Source } from "./source.js";

const AT_ONCE = 2; // frames under way: one in the network, one that waits, so that it never stands still
const MOST_THREADS = 8;

const find = (id) => document.getElementById(id);
const source = new Source();
const compositor = new Compositor(find("result"));
const recorder = new Recorder();
const meter = new Meter(find("fps"), find("ms"), find("memory"));
let network = null;
let model = null;
let ready = null; // the promise of a loaded network
let underWay = 0;
let scene = 0; // counts sources and networks, so that what comes late is left out

/** Show a line at its place: error, note or isolation; an empty one takes it away. */
function say(id, text) {
  find(id).textContent = text;
  if (id !== "note") find(id).hidden = !text; // the note keeps its place, so that nothing jumps
}

/** Do something that may fail; the error, if any, is one line on the page. */
async function attempt(action) {
  say("error", "");
  try {
    await action();
  } catch (error) {
    if (error.name !== "AbortError") say("error", error.message);
  }
  show();
}

function show() {
  find("empty").hidden = source.open || !find("result").hidden;
  find("camera").textContent = source.kind === "camera" ? "Stop camera" : "Start camera";
  find("play").disabled = !source.open;
  find("play").textContent = source.paused ? "Play" : "Pause";
  find("record").disabled = !source.open && !recorder.running;
  find("record").textContent = recorder.running ? "Stop recording" : "Record";
  find("record").classList.toggle("recording", recorder.running);
}

// --- the network ---

function mostThreads() {
  return self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS) : 1;
}

function load(threads) {
  network?.close();
  scene += 1;
  underWay = 0;
  meter.reset();
  network = new Network();
  say("note", "Loading the network…");
  const loading = network.open(threads).then(
    (found) => {
      model = found;
      describe(found);
    },
    (error) => {
      throw new Error(`The network could not be loaded: ${error.message}.`);
    },
  );
  ready = loading.finally(() => say("note", ""));
  return ready;
}

function describe({ metadata, size, version, sha256 }) {
  find("network").textContent = [metadata.model, metadata.bits?.toUpperCase(), `${size.width}×${size.height}`]
    .filter(Boolean)
    .join(" · ");
  const facts = { Network: metadata.model, Bits: metadata.bits, Method: metadata.method, Size: metadata.size };
  const more = { Licence: metadata.licence, "SHA-256": sha256, "Made with": `ptq4vm ${version}` };
  const rows = Object.entries({ ...facts, ...more }).filter(([, value]) => value);
  find("about").replaceChildren(
    ...rows.map(([name, value]) => {
      const [row, term, text] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
      term.textContent = name;
      text.textContent = value; // never as HTML: a file's metadata are anybody's
      row.append(term, text);
      return row;
    }),
  );
}

// --- a frame ---

async function onFrame() {
  const { video } = source;
  const { videoWidth: width, videoHeight: height } = video;
  const drawable = width && video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA;
  if (model === null || underWay >= AT_ONCE || !drawable) return;
  const now = scene;
  underWay += 1;
  try {
    const at = place(width, height, model.size);
    const frame = await createImageBitmap(video); // a copy: by the time that its matte is there, the video has gone on
    const small = await createImageBitmap(frame, {
      resizeWidth: at.width,
      resizeHeight: at.height,
      resizeQuality: "high",
    });
    if (now !== scene) return;
    const matte = await network.matte(small, width, height);
    if (now !== scene) return;
    compositor.draw(frame, matte);
    find("result").hidden = false;
    find("drop").classList.add("filled");
    meter.count(matte.ms, matte.heap);
    show();
  } catch (error) {
    if (now === scene) say("error", `A frame could not be matted: ${error.message}.`);
  } finally {
    if (now === scene) underWay -= 1;
  }
}

async function begin(open) {
  await attempt(async () => {
    if (recorder.running) await endRecording();
    await ready;
    await open();
    scene += 1;
    underWay = 0;
    meter.reset();
    await network.reset();
  });
}

// --- recording ---

async function endRecording() {
  const blob = await recorder.stop();
  const link = find("save");
  if (link.href) URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(blob);
  link.download = "matted.webm";
  link.hidden = false;
  show();
  const size = `Recorded ${Math.max(1, Math.round(blob.size / 1e3)).toLocaleString("en")} kB of WebM`;
  if (compositor.settings.background !== "transparent") return say("note", `${size}.`);
  const kept = await hasAlpha(blob).catch(() => false);
  return say("note", kept ? `${size} with alpha.` : `${size}. This browser did not keep alpha: choose a colour to key.`);
}

async function record() {
  if (recorder.running) return endRecording();
  say("note", "Recording…");
  find("save").hidden = true;
  return recorder.start(find("result"));
}

// --- the controls ---

function chooseBackground(background) {
  compositor.set({ background });
  find("result").classList.toggle("clear", background === "transparent");
  for (const field of document.querySelectorAll("[data-for]")) field.hidden = field.dataset.for !== background;
}

async function choosePicture(file) {
  try {
    compositor.set({ picture: await createImageBitmap(file) });
  } catch {
    throw new Error(`${file.name} is no picture that this browser can read: try JPEG, PNG or WebP.`);
  }
}

function connect() {
  source.onframe = onFrame;
  source.onend = show;
  find("file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    if (file) begin(() => source.file(file));
    target.value = ""; // so that the same file can be opened again
  });
  find("camera").addEventListener("click", () => {
    if (source.kind === "camera") attempt(() => source.close());
    else begin(() => source.camera());
  });
  find("play").addEventListener("click", () =>
    attempt(async () => {
      const again = source.video.ended;
      await source.toggle();
      if (again) await network.reset();
    }),
  );
  find("record").addEventListener("click", () => attempt(record));
  find("colour").addEventListener("input", ({ target }) => compositor.set({ colour: target.value }));
  find("strength").addEventListener("input", ({ target }) => compositor.set({ strength: Number(target.value) }));
  find("picture").addEventListener("change", ({ target }) => {
    if (target.files[0]) attempt(() => choosePicture(target.files[0]));
  });
  for (const choice of document.querySelectorAll("[name=background]")) {
    choice.addEventListener("change", () => chooseBackground(choice.value));
    if (choice.checked) chooseBackground(choice.value); // browsers keep choices when a page is loaded again
  }
  find("threads").addEventListener("change", ({ target }) => attempt(() => load(Number(target.value))));
  drops(find("drop"));
}

function drops(place) {
  const over = (event) => {
    event.preventDefault();
    place.classList.toggle("over", event.type === "dragover");
  };
  for (const kind of ["dragover", "dragleave", "drop"]) addEventListener(kind, over);
  addEventListener("drop", ({ dataTransfer }) => {
    const [file] = dataTransfer.files;
    if (file) begin(() => source.file(file));
  });
}

function offerThreads() {
  const most = mostThreads();
  find("threads").replaceChildren(
    ...Array.from({ length: most }, (_, index) => new Option(String(index + 1), String(index + 1))),
  );
  // half of what is there, at least two: the others draw, decode and do what else the machine does
  const asked = Number(new URLSearchParams(location.search).get("threads"));
  const chosen = asked >= 1 && asked <= most ? Math.floor(asked) : Math.min(most, Math.max(2, Math.ceil(most / 2)));
  find("threads").value = String(chosen);
  find("threads").disabled = most === 1;
  if (!self.crossOriginIsolated) {
    say("isolation", "One thread: the server sends no COOP and COEP headers, as ptq4vm web serve=true does.");
  }
  return chosen;
}

connect();
show();
attempt(() => load(offerThreads()));

/** For whoever compares or measures: alpha of pictures of the network's own size, with states carried. */
window.ptq4vm = {
  ready: () => ready,
  model: () => model,
  reset: () => network.reset(),
  alphaOf: (imageData) => network.alpha(imageData),
};
