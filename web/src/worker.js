// Runs the network, apart from the page: frames in, mattes out, the recurrent states kept here.
import { cut, drawPadded, place, planes } from "./fitting.js";

// ONNX Runtime does not tell how much memory its WebAssembly has; what it makes is seen here.
const memories = [];
WebAssembly.Memory = class extends WebAssembly.Memory {
  constructor(descriptor) {
    super(descriptor);
    memories.push(this);
  }
};

const state = { ort: null, session: null, model: null, carried: {}, source: null, context: null };

async function open({ threads }) {
  const base = new URL("../", import.meta.url);
  const model = await (await got(new URL("model.json", base))).json();
  const ort = await import(new URL("ort/ort.wasm.min.mjs", base).href);
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = new URL("ort/", base).href;
  const network = new Uint8Array(await (await got(new URL(model.network, base))).arrayBuffer());
  const session = await ort.InferenceSession.create(network, {
    executionProviders: ["wasm"],
    // as ptq4vm's own engine: rounded biases move alpha where few bits make their steps large
    extra: { optimization: { disable_specified_optimizers: "WeightBiasQuantization" } },
  });
  const { width, height } = model.size;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true, alpha: false });
  context.imageSmoothingQuality = "high";
  Object.assign(state, { ort, session, model, context, source: new Float32Array(3 * width * height) });
  reset();
  await step(new Uint8ClampedArray(4 * width * height)); // the first run takes longer than all that come
  reset();
  return { model };
}

async function got(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address.pathname} is missing (HTTP ${answer.status}): run ptq4vm web again`);
  return answer;
}

/** Forget the frames seen so far. */
function reset() {
  for (const tensor of Object.values(state.carried)) tensor.dispose();
  state.carried = {};
  for (const { input, shape } of state.model.states) {
    const length = shape.reduce((product, size) => product * size, 1);
    state.carried[input] = new state.ort.Tensor("float32", new Float32Array(length), shape);
  }
}

/** One frame of the network's own size, RGBA codes. */
async function step(pixels) {
  const { ort, session, model } = state;
  planes(pixels, state.source);
  const start = performance.now();
  const source = new ort.Tensor("float32", state.source, model.input.shape);
  const found = await session.run({ [model.input.name]: source, ...state.carried });
  const ms = performance.now() - start;
  for (const { input, output } of model.states) state.carried[input] = found[output];
  return { alpha: found[model.outputs.alpha].data, foreground: found[model.outputs.foreground].data, ms };
}

function heap() {
  return memories.reduce((sum, memory) => sum + memory.buffer.byteLength, 0);
}

const tasks = {
  open,
  reset,
  async matte({ frame, width, height }) {
    const own = state.model.size;
    const at = place(width, height, own);
    drawPadded(state.context, frame, at, own);
    frame.close();
    const { alpha, foreground, ms } = await step(state.context.getImageData(0, 0, own.width, own.height).data);
    const pixels = cut(alpha, foreground, at, own);
    return { value: { pixels, width: at.width, height: at.height, ms, heap: heap() }, moved: [pixels.buffer] };
  },
  async alpha({ pixels, width, height }) {
    const own = state.model.size;
    if (width !== own.width || height !== own.height || pixels.length !== 4 * width * height) {
      throw new Error(`the network takes pictures of ${own.width}x${own.height}, not ${width}x${height}`);
    }
    const found = await step(pixels);
    const alpha = found.alpha.slice();
    return { value: { alpha, ms: found.ms, heap: heap() }, moved: [alpha.buffer] };
  },
};

let last = Promise.resolve(); // states go from frame to frame: one task after the other
self.onmessage = ({ data: { id, task, values } }) => {
  last = last.then(async () => {
    try {
      const done = await tasks[task](values ?? {});
      self.postMessage({ id, value: done?.moved ? done.value : done }, done?.moved ?? []);
    } catch (error) {
      self.postMessage({ id, error: String(error?.message ?? error).split("\n")[0] });
    }
  });
};
