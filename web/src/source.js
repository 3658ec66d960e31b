// Where frames come from: a video file or the camera, in a video element that is not shown.

export class Source {
  constructor() {
    this.video = document.createElement("video");
    this.video.muted = true; // else browsers refuse to play what nobody has started
    this.video.playsInline = true;
    this.kind = null;
    this.onframe = () => {};
    this.onend = () => {};
    this.video.addEventListener("ended", () => this.onend());
    this.#watch();
  }

  get open() {
    return this.kind !== null;
  }

  get paused() {
    return this.video.paused || this.video.ended;
  }

  /** Open a video file, and play it. */
  async file(file) {
    const refused = new Error(`${file.name} is no video that this browser can play: try MP4 (H.264) or WebM.`);
    if (file.type && !/^(video\/|application\/(mp4|ogg|octet-stream))/.test(file.type)) throw refused;
    this.close();
    this.video.src = URL.createObjectURL(file);
    try {
      await this.video.play();
    } catch (error) {
      this.close();
      throw error.name === "AbortError" ? error : refused;
    }
    if (!this.video.videoWidth) {
      this.close();
      throw new Error(`${file.name} has no picture: choose a file with video.`);
    }
    this.kind = "file";
  }

  /** Open the camera. */
  async camera() {
    if (!navigator.mediaDevices?.getUserMedia) throw new Error("The camera needs https, or a page from localhost.");
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: { width: { ideal: 1280 } } });
    } catch (error) {
      throw new Error(REFUSALS[error.name] ?? `The camera cannot be used (${error.message || error.name}).`);
    }
    this.close();
    this.video.srcObject = stream;
    for (const track of stream.getVideoTracks()) track.addEventListener("ended", () => this.onend());
    await this.video.play();
    this.kind = "camera"; // only now: before, there may be a frame that cannot be drawn yet
  }

  async toggle() {
    if (this.paused) await this.video.play();
    else this.video.pause();
  }

  close() {
    this.kind = null;
    for (const track of this.video.srcObject?.getTracks() ?? []) track.stop();
    this.video.srcObject = null;
    if (this.video.src) {
      URL.revokeObjectURL(this.video.src);
      this.video.removeAttribute("src");
      this.video.load();
    }
  }

  /** Tell of every new frame, once. */
  #watch() {
    if (this.video.requestVideoFrameCallback) {
      const seen = () => {
        if (this.open) this.onframe();
        this.video.requestVideoFrameCallback(seen);
      };
      this.video.requestVideoFrameCallback(seen);
      return;
    }
    let before = -1;
    const look = () => {
      if (this.open && !this.paused && this.video.currentTime !== before) {
        before = this.video.currentTime;
        this.onframe();
      }
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  }
}

const REFUSALS = {
  NotFoundError: "No camera was found: connect one and try again.",
  NotAllowedError: "The camera was not allowed: allow it for this page in the browser.",
  NotReadableError: "The camera is in use by another program: close that and try again.",
  OverconstrainedError: "The camera has no suitable picture.",
};
