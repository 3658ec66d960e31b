// How frames of every size come into the network's one size, and its matte back: as ptq4vm's own engine does it.

/** Where a frame of (width, height) lies in the network's picture, its aspect kept: {x, y, width, height} in pixels. */
export function place(width, height, own) {
  const scale = Math.min(own.width / width, own.height / height);
  const inner = {
    width: Math.max(1, Math.min(own.width, Math.round(width * scale))),
    height: Math.max(1, Math.min(own.height, Math.round(height * scale))),
  };
  return {
    ...inner,
    x: Math.floor((own.width - inner.width) / 2),
    y: Math.floor((own.height - inner.height) / 2),
  };
}

/**
 * Draw a frame at its place. What is free beside it is filled by the picture again, above and below by its edge:
 * streaks of its edge at the sides would make portraits' mattes several times worse.
 */
export function drawPadded(context, frame, at, own) {
  context.drawImage(frame, at.x, at.y, at.width, at.height);
  const { canvas } = context;
  for (let x = at.x - at.width; x > -at.width; x -= at.width) {
    context.drawImage(canvas, at.x, at.y, at.width, at.height, x, at.y, at.width, at.height);
  }
  for (let x = at.x + at.width; x < own.width; x += at.width) {
    context.drawImage(canvas, at.x, at.y, at.width, at.height, x, at.y, at.width, at.height);
  }
  const below = at.y + at.height;
  context.imageSmoothingEnabled = false; // one row, drawn out, without what lies beside it
  if (at.y > 0) context.drawImage(canvas, 0, at.y, own.width, 1, 0, 0, own.width, at.y);
  if (below < own.height) {
    context.drawImage(canvas, 0, below - 1, own.width, 1, 0, below, own.width, own.height - below);
  }
  context.imageSmoothingEnabled = true;
}

const SHARE = Float32Array.from({ length: 256 }, (_, code) => code / 255);

/** Pixels (RGBA codes) as the network takes them: planes of red, green and blue, float32 in [0, 1]. */
export function planes(pixels, into) {
  const size = into.length / 3;
  for (let i = 0, p = 0; i < size; i += 1, p += 4) {
    into[i] = SHARE[pixels[p]];
    into[size + i] = SHARE[pixels[p + 1]];
    into[2 * size + i] = SHARE[pixels[p + 2]];
  }
}

/** The part of the network's alpha and foreground that the frame covers, as RGBA codes. */
export function cut(alpha, foreground, at, own) {
  const size = own.width * own.height;
  const pixels = new Uint8ClampedArray(at.width * at.height * 4);
  let p = 0;
  for (let y = at.y; y < at.y + at.height; y += 1) {
    for (let i = y * own.width + at.x, end = i + at.width; i < end; i += 1, p += 4) {
      pixels[p] = foreground[i] * 255; // a clamped array rounds by itself
      pixels[p + 1] = foreground[size + i] * 255;
      pixels[p + 2] = foreground[2 * size + i] * 255;
      pixels[p + 3] = alpha[i] * 255;
    }
  }
  return pixels;
}
