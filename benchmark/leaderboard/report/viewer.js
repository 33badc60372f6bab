"use strict";
// Points and triangles in a canvas, drawn with a depth buffer: no context to run out of, the same picture everywhere.
class Orbit { // one rotation that several views share
  constructor() { this.azimuth = 0.61; this.elevation = 0.35; this.zoom = 1; this.views = []; }
  turn(dx, dy, zoom = 1) { this.azimuth += dx; this.elevation = Math.max(-1.57, Math.min(1.57, this.elevation + dy)); this.zoom = Math.max(0.5, Math.min(4, this.zoom * zoom)); this.draw(); }
  reset() { Object.assign(this, { azimuth: 0.61, elevation: 0.35, zoom: 1 }); this.draw(); }
  draw() { if (!this.pending) this.pending = requestAnimationFrame(() => { this.pending = null; this.views.forEach((v) => v.draw()); }); }
}
class View {
  // scene: {points: Int16Array, colours: Uint8Array} or {points: Int16Array, faces: Uint16Array, colour}
  constructor(orbit, scene, label) {
    this.orbit = orbit; this.scene = scene;
    this.canvas = el("canvas", { class: "view", width: 400, height: 400, tabindex: 0, role: "img", "aria-label": `${label}. Arrow keys turn it, plus and minus zoom.` });
    this.context = this.canvas.getContext("2d"); this.image = this.context.createImageData(400, 400); this.depth = new Float32Array(160000);
    let last = null;
    this.canvas.addEventListener("pointerdown", (e) => { last = [e.clientX, e.clientY]; this.canvas.setPointerCapture(e.pointerId); });
    this.canvas.addEventListener("pointermove", (e) => { if (last) { orbit.turn((e.clientX - last[0]) / 110, (e.clientY - last[1]) / 110); last = [e.clientX, e.clientY]; } });
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, () => { last = null; });
    this.canvas.addEventListener("keydown", (e) => {
      const step = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15], "+": [0, 0, 1.15], "-": [0, 0, 1 / 1.15], Home: null }[e.key];
      if (step === undefined) return;
      e.preventDefault(); step ? orbit.turn(...step) : orbit.reset();
    });
    orbit.views.push(this); this.draw();
  }
  draw() {
    const { azimuth: a, elevation: e, zoom } = this.orbit, { points, colours, faces, colour, normals } = this.scene;
    const n = points.length / 3, S = 400, scale = (S / 2 / 32767) * zoom, ca = Math.cos(a), sa = Math.sin(a), ce = Math.cos(e), se = Math.sin(e);
    const data = this.image.data, depth = this.depth; depth.fill(-1e9); data.fill(0);
    const X = new Float32Array(n), Y = new Float32Array(n), Z = new Float32Array(n);
    for (let i = 0; i < n; i++) { const x = points[3 * i], y = points[3 * i + 1], z = points[3 * i + 2], right = ca * x - sa * z, toward = sa * x + ca * z;
      X[i] = S / 2 + right * scale; Y[i] = S / 2 - (ce * y - se * toward) * scale; Z[i] = (se * y + ce * toward) * scale; }
    const put = (x, y, z, r, g, b) => { const k = y * S + x; if (z > depth[k]) { depth[k] = z; data[4 * k] = r; data[4 * k + 1] = g; data[4 * k + 2] = b; data[4 * k + 3] = 255; } };
    const light = (nx, ny, nz) => 0.42 + 0.58 * Math.max(0, 0.5 + 0.5 * (0.3 * nx + 0.72 * ny + 0.62 * nz)) ** 1.4;
    if (!faces) {
      const radius = (n > 6000 ? 1 : 2) + (zoom > 1.7 ? 1 : 0);
      for (let i = 0; i < n; i++) {
        let r, g, b;
        if (normals) { const [nx, ny, nz] = [normals[3 * i] / 127, normals[3 * i + 1] / 127, normals[3 * i + 2] / 127], q = sa * nx + ca * nz, s = light(ca * nx - sa * nz, ce * ny - se * q, se * ny + ce * q);
          [r, g, b] = colour.map((c) => c * s); } else { r = colours[3 * i]; g = colours[3 * i + 1]; b = colours[3 * i + 2]; }
        const x = Math.round(X[i]), y = Math.round(Y[i]);
        for (let v = -radius; v <= radius; v++) for (let u = -radius; u <= radius; u++) { if (u * u + v * v > radius * radius + 1) continue; const p = x + u, q = y + v; if (p >= 0 && p < S && q >= 0 && q < S) put(p, q, Z[i], r, g, b); }
      }
    } else for (let f = 0; f < faces.length; f += 3) {
      const i = faces[f], j = faces[f + 1], k = faces[f + 2], ux = X[j] - X[i], uy = Y[j] - Y[i], uz = Z[j] - Z[i], vx = X[k] - X[i], vy = Y[k] - Y[i], vz = Z[k] - Z[i];
      let nx = uy * vz - uz * vy, ny = uz * vx - ux * vz, nz = ux * vy - uy * vx; const area = nz, size = Math.hypot(nx, ny, nz);
      if (Math.abs(area) < 1e-6 || !size) continue;
      if (nz < 0) { nx = -nx; ny = -ny; nz = -nz; }
      const s = light(nx / size, -ny / size, nz / size), [r, g, b] = colour.map((c) => c * s);
      const left = Math.max(0, Math.ceil(Math.min(X[i], X[j], X[k]) - 0.5)), right = Math.min(S - 1, Math.floor(Math.max(X[i], X[j], X[k]) + 0.5)), top = Math.max(0, Math.ceil(Math.min(Y[i], Y[j], Y[k]) - 0.5)), bottom = Math.min(S - 1, Math.floor(Math.max(Y[i], Y[j], Y[k]) + 0.5));
      for (let y = top; y <= bottom; y++) for (let x = left; x <= right; x++) {
        const px = x - X[i], py = y - Y[i], m = (px * vy - py * vx) / area, w = (ux * py - uy * px) / area;
        if (m >= -0.02 && w >= -0.02 && m + w <= 1.02) put(x, y, Z[i] + m * uz + w * vz, r, g, b);
      }
    }
    this.context.putImageData(this.image, 0, 0);
  }
}
