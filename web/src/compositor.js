// The picture that is seen: the frame's subject over a colour, a blur of the frame, a picture, or nothing.

function canvas(width = 1, height = 1) {
  return new OffscreenCanvas(width, height).getContext("2d");
}

function fit(context, width, height) {
  if (context.canvas.width !== width || context.canvas.height !== height) {
    Object.assign(context.canvas, { width, height });
  }
  context.imageSmoothingQuality = "high";
}

const SOLID = Uint8ClampedArray.from({ length: 256 }, (_, alpha) => (alpha - 230) * 12);

export class Compositor {
  /** The canvas that is shown, with its alpha. */
  constructor(shown) {
    this.shown = shown.getContext("2d", { alpha: true });
    this.settings = { background: "colour", colour: "#00b140", strength: 5, picture: null };
    this.subject = canvas(); // the frame's size
    this.alpha = canvas(); // the matte's size, as the next two
    this.solid = canvas();
    this.colours = canvas();
    this.small = canvas(); // the blurred background
    this.frame = null; // the frame that is shown
  }

  /** Draw a frame (ImageBitmap of its own size, which is given away) with its matte {pixels, width, height}. */
  draw(frame, matte) {
    const { width, height } = frame;
    this.frame?.close();
    this.frame = frame;
    fit(this.subject, width, height);
    this.#split(matte);
    const { subject } = this;
    subject.globalCompositeOperation = "copy";
    subject.drawImage(frame, 0, 0);
    // where all is subject the frame's own colours, which are sharper; at the rim the network's, which are free of the
    // old background
    subject.globalCompositeOperation = "destination-in";
    subject.drawImage(this.solid.canvas, 0, 0, width, height);
    subject.globalCompositeOperation = "destination-over";
    subject.drawImage(this.colours.canvas, 0, 0, width, height);
    subject.globalCompositeOperation = "destination-in";
    subject.drawImage(this.alpha.canvas, 0, 0, width, height);
    this.#compose();
  }

  /** Change what is behind the subject, also of the frame that is shown. */
  set(settings) {
    Object.assign(this.settings, settings);
    if (this.frame !== null) this.#compose();
  }

  #compose() {
    const { width, height } = this.frame;
    fit(this.shown, width, height);
    this.shown.globalCompositeOperation = "copy";
    this.shown.drawImage(this.subject.canvas, 0, 0);
    this.shown.globalCompositeOperation = "destination-over";
    this.#behind(this.frame, width, height);
  }

  /** Alpha, where it is solid, and the colours of the foreground, each on its own canvas. */
  #split({ pixels, width, height }) {
    const alpha = new ImageData(width, height);
    const solid = new ImageData(width, height);
    for (let p = 3; p < pixels.length; p += 4) {
      alpha.data[p] = pixels[p];
      solid.data[p] = SOLID[pixels[p]];
      pixels[p] = 255; // a canvas forgets colours without alpha
    }
    const parts = [[this.alpha, alpha], [this.solid, solid], [this.colours, new ImageData(pixels, width, height)]];
    for (const [context, data] of parts) {
      fit(context, width, height);
      context.putImageData(data, 0, 0);
    }
  }

  #behind(frame, width, height) {
    const { background, colour, strength, picture } = this.settings;
    if (background === "blur") {
      this.#blurred(frame, width, height, strength);
    } else if (background === "image" && picture) {
      const scale = Math.max(width / picture.width, height / picture.height);
      const size = [picture.width * scale, picture.height * scale];
      this.shown.drawImage(picture, (width - size[0]) / 2, (height - size[1]) / 2, ...size);
    } else if (background !== "transparent") {
      this.shown.fillStyle = colour;
      this.shown.fillRect(0, 0, width, height);
    }
  }

  /** A blur is a small picture drawn large: quick, and in every browser. */
  #blurred(frame, width, height, strength) {
    const side = Math.max(6, Math.round(96 / strength));
    const scale = side / Math.max(width, height);
    fit(this.small, Math.max(2, Math.round(width * scale)), Math.max(2, Math.round(height * scale)));
    this.small.drawImage(frame, 0, 0, this.small.canvas.width, this.small.canvas.height);
    this.shown.drawImage(this.small.canvas, 0, 0, width, height);
  }
}
