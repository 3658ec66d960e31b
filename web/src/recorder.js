// Records what is shown as WebM, and looks afterwards whether its alpha was kept.

const TYPES = ["video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"];

export class Recorder {
  #recorder = null;

  static get type() {
    return typeof MediaRecorder === "undefined" ? undefined : TYPES.find((type) => MediaRecorder.isTypeSupported(type));
  }

  get running() {
    return this.#recorder !== null;
  }

  /** Begin to record a canvas. */
  start(canvas) {
    const type = Recorder.type;
    if (type === undefined || !canvas.captureStream) throw new Error("This browser cannot record WebM.");
    const parts = [];
    const stream = canvas.captureStream();
    this.#recorder = new MediaRecorder(stream, { mimeType: type, videoBitsPerSecond: 8e6 });
    this.#recorder.ondataavailable = ({ data }) => parts.push(data);
    this.done = new Promise((resolve) => {
      this.#recorder.onstop = () => {
        for (const track of stream.getTracks()) track.stop();
        resolve(new Blob(parts, { type: "video/webm" }));
      };
    });
    this.#recorder.start(1000);
  }

  /** End the recording; gives its Blob. */
  async stop() {
    this.#recorder.stop();
    this.#recorder = null;
    return this.done;
  }
}

/** Whether some pixel of a recorded video is not opaque. */
export async function hasAlpha(blob) {
  const video = document.createElement("video");
  video.muted = true;
  video.src = URL.createObjectURL(blob);
  try {
    await new Promise((resolve, reject) => {
      video.onloadeddata = resolve;
      video.onerror = () => reject(new Error("the recording cannot be read"));
    });
    await video.play();
    await new Promise((resolve) => setTimeout(resolve, 100));
    const { videoWidth: width, videoHeight: height } = video;
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(video, 0, 0);
    return context.getImageData(0, 0, width, height).data.some((value, index) => index % 4 === 3 && value < 250);
  } finally {
    video.pause();
    URL.revokeObjectURL(video.src);
  }
}
