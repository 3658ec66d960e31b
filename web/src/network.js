// The network as the page sees it: promises, with the worker behind them.

export class Network {
  #worker;
  #waiting = new Map();
  #count = 0;

  constructor() {
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data: { id, value, error } }) => {
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) resolve(value);
      else reject(new Error(error));
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#fail(new Error(event.message || "the worker could not be loaded"));
    };
  }

  #fail(error) {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  #ask(task, values, moved = []) {
    return new Promise((resolve, reject) => {
      this.#count += 1;
      this.#waiting.set(this.#count, { resolve, reject });
      this.#worker.postMessage({ id: this.#count, task, values }, moved);
    });
  }

  /** Load the network; gives what model.json says. */
  async open(threads) {
    const { model } = await this.#ask("open", { threads });
    return model;
  }

  /** Forget the frames seen so far. */
  reset() {
    return this.#ask("reset");
  }

  /** Matte an ImageBitmap, which is given away; width and height are those of the frame that it shows. */
  matte(frame, width, height) {
    return this.#ask("matte", { frame, width, height }, [frame]);
  }

  /** Alpha (float32, row by row) of pixels of the network's own size, for whoever compares. */
  alpha({ data, width, height }) {
    return this.#ask("alpha", { pixels: data, width, height });
  }

  close() {
    this.#worker.terminate();
    this.#fail(new Error("closed"));
  }
}
