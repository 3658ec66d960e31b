// Frames a second, milliseconds a frame, and memory.

const SECONDS = 2; // over which frames are counted

export class Meter {
  #times = [];
  #ms = [];
  #heap = 0;

  constructor(fps, ms, memory) {
    Object.assign(this, { fps, ms, memory });
    setInterval(() => this.#show(), 500);
  }

  reset() {
    this.#times = [];
    this.#ms = [];
  }

  /** Count a frame that took the network so many ms; heap is the size of its WebAssembly memory in bytes. */
  count(ms, heap) {
    this.#times.push(performance.now());
    this.#ms.push(ms);
    this.#heap = heap;
  }

  #show() {
    const now = performance.now();
    const old = this.#times.findIndex((time) => time > now - SECONDS * 1000);
    const gone = old < 0 ? this.#times.length : old;
    this.#times.splice(0, gone);
    this.#ms.splice(0, gone);
    const count = this.#times.length;
    const span = count > 1 ? (this.#times[count - 1] - this.#times[0]) / 1000 : 0;
    this.fps.textContent = span > 0 ? ((count - 1) / span).toFixed(1) : "–";
    this.ms.textContent = count ? [...this.#ms].sort((a, b) => a - b)[count >> 1].toFixed(0) : "–";
    // what the page's own objects take is only told by some browsers
    const own = performance.memory?.usedJSHeapSize ?? 0;
    this.memory.textContent = this.#heap ? ((this.#heap + own) / 1e6).toFixed(0) : "–";
  }
}
