// MediaPipe's own segmentation behind what benchmarks/browser.py asks a page of `ptq4vm web`: window.ptq4vm, #file, #fps.
// The video's frames and their count are that page's own source.js and meter.js.
import { Meter } from "./meter.js";
import { Source } from "./source.js";

const find = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);
const segmentation = new window.SelfieSegmentation({ locateFile: (name) => name });
let found = null;
segmentation.onResults((results) => {
  found = results;
});
segmentation.setOptions({
  modelSelection: asked.get("graph") === "general" ? 0 : 1,
  selfieMode: false,
  useCpuInference: asked.get("inference") === "cpu",
});

const context = (canvas) => canvas.getContext("2d", { willReadFrequently: true });
const picture = document.createElement("canvas");
const copy = context(new OffscreenCanvas(1, 1));
const result = find("result").getContext("2d");
const source = new Source();
const meter = new Meter(find("fps"), find("ms"), find("memory"));
let busy = false;

/** The frame's subject over a colour, as the examples of the package draw it. */
function draw(video) {
  const { videoWidth: width, videoHeight: height } = video;
  if (result.canvas.width !== width) Object.assign(result.canvas, { width, height });
  result.globalCompositeOperation = "copy";
  result.drawImage(found.segmentationMask, 0, 0, width, height);
  result.globalCompositeOperation = "source-in";
  result.drawImage(found.image, 0, 0, width, height);
  result.globalCompositeOperation = "destination-over";
  result.fillStyle = "#00b140";
  result.fillRect(0, 0, width, height);
}

source.onframe = async () => {
  if (busy) return; // frames that come too fast are left out
  busy = true;
  const start = performance.now();
  await segmentation.send({ image: source.video });
  draw(source.video);
  meter.count(performance.now() - start, 0);
  result.canvas.hidden = false;
  busy = false;
};
find("file").addEventListener("change", ({ target }) => source.file(target.files[0]));

/** Alpha (float32) of pixels, and milliseconds until it is there: before it is read, WebGL has only been told what to do. */
async function alphaOf({ data, width, height }) {
  Object.assign(picture, { width, height });
  context(picture).putImageData(new ImageData(data, width, height), 0, 0);
  const start = performance.now();
  await segmentation.send({ image: picture });
  const { segmentationMask: mask } = found;
  Object.assign(copy.canvas, { width: mask.width, height: mask.height });
  copy.drawImage(mask, 0, 0);
  const codes = copy.getImageData(0, 0, mask.width, mask.height).data;
  const ms = performance.now() - start;
  return { alpha: Float32Array.from({ length: codes.length / 4 }, (_, i) => codes[4 * i + 3] / 255), ms };
}

/** What computes WebGL here; null where there is none. */
function renderer() {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  const more = gl?.getExtension("WEBGL_debug_renderer_info");
  return gl && gl.getParameter(more ? more.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
}

window.ptq4vm = { ready: () => segmentation.initialize(), reset: async () => segmentation.reset(), alphaOf, renderer };
