// Inputs and frames as bytes: arena/wire.py says what stands where.

const INPUT = 1;
const FRAME = 2;
const FINE = 32;

// `dx` and `dy` are whole numbers of 127ths.
export function writeInput(number, dx, dy) {
  const view = new DataView(new ArrayBuffer(7));
  view.setUint8(0, INPUT);
  view.setUint32(1, number, true);
  view.setInt8(5, dx);
  view.setInt8(6, dy);
  return view.buffer;
}

// Returns null for what is no frame.
export function readFrame(buffer) {
  const view = new DataView(buffer);
  if (view.getUint8(0) !== FRAME) return null;
  const frame = {
    reign: view.getUint32(1, true),
    tick: view.getUint32(5, true),
    taken: view.getUint32(9, true),
    own: {
      x: view.getFloat32(13, true),
      y: view.getFloat32(17, true),
      vx: view.getFloat32(21, true),
      vy: view.getFloat32(25, true),
    },
    angle: view.getFloat32(29, true),
    score: view.getUint32(33, true),
    ducks: new Map(),
    grains: [],
  };
  let at = 39;
  for (let left = view.getUint16(37, true); left; left -= 1, at += 10) {
    frame.ducks.set(view.getUint32(at, true), {
      x: view.getUint16(at + 4, true) / FINE,
      y: view.getUint16(at + 6, true) / FINE,
      angle: (view.getUint8(at + 8) / 256) * 2 * Math.PI,
      away: view.getUint8(at + 9) === 1,
    });
  }
  const grains = view.getUint16(at, true);
  at += 2;
  for (let left = grains; left; left -= 1, at += 9) {
    frame.grains.push({
      id: view.getUint32(at, true),
      x: view.getUint16(at + 4, true) / FINE,
      y: view.getUint16(at + 6, true) / FINE,
      worth: view.getUint8(at + 8),
    });
  }
  return frame;
}
