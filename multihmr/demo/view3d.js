// People of a GLB, as multihmr saves it, in a canvas that can be turned: WebGL 1, no library, nothing fetched.
// Drag or arrow keys turn, wheel, pinch, + or - zoom, drag with shift or the right button moves, double click or 0 resets.
// multihmrView(canvas).show(buffer): an ArrayBuffer of the file; null shows the empty floor.

function multihmrView(canvas) {
  const gl = canvas.getContext("webgl", {antialias: true, preserveDrawingBuffer: true});
  if (!gl) return null;
  gl.getExtension("OES_element_index_uint");

  const surface = program(
    `attribute vec3 place; attribute vec3 normal; uniform mat4 toClip; varying vec3 n; varying vec3 p;
     void main() { n = normal; p = place; gl_Position = toClip * vec4(place, 1.0); }`,
    `precision mediump float; varying vec3 n; varying vec3 p; uniform vec3 paint, eye, key;
     void main() {
       vec3 normal = normalize(n), facing = normalize(eye - p);
       float lambert = max(dot(normal, key) * 0.75 + 0.25, 0.0), sky = 0.5 + 0.5 * normal.y;
       float gloss = pow(max(dot(normal, normalize(key + facing)), 0.0), 28.0);
       float rim = pow(1.0 - max(dot(normal, facing), 0.0), 3.5);
       vec3 light = lambert * vec3(0.80, 0.78, 0.74) + sky * vec3(0.26, 0.28, 0.32) + 0.10;
       vec3 linear = paint * light + 0.10 * gloss + 0.28 * rim * sky;
       gl_FragColor = vec4(pow(clamp(linear, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
     }`);
  const wires = program(
    `attribute vec3 place; uniform mat4 toClip; void main() { gl_Position = toClip * vec4(place, 1.0); }`,
    `precision mediump float; uniform vec4 color; void main() { gl_FragColor = color; }`);

  let meshes = [], grid = lines([]), photographer = lines([]);
  let pivot = [0, 0, -3], reach = 1.5, start = null, look = null;

  function program(vertex, fragment) {
    const made = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    return made;
  }

  function stored(kind, values) {
    const buffer = gl.createBuffer();
    gl.bindBuffer(kind, buffer);
    gl.bufferData(kind, values, gl.STATIC_DRAW);
    return buffer;
  }

  function lines(points) {
    return {buffer: stored(gl.ARRAY_BUFFER, new Float32Array(points.flat())), count: points.length};
  }

  function read(buffer) {
    const view = new DataView(buffer), length = view.getUint32(12, true);
    const tree = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 20, length)));
    const kinds = {5121: Uint8Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array};
    const array = index => {
      const accessor = tree.accessors[index], part = tree.bufferViews[accessor.bufferView];
      const offset = 28 + length + (part.byteOffset || 0) + (accessor.byteOffset || 0);
      const count = accessor.count * (accessor.type === "VEC3" ? 3 : 1);
      return new kinds[accessor.componentType](buffer, offset, count);
    };
    const people = tree.nodes.filter(node => node.mesh !== undefined).map(node => {
      const part = tree.meshes[node.mesh].primitives[0];
      return {
        places: array(part.attributes.POSITION), normals: array(part.attributes.NORMAL),
        corners: array(part.indices),
        paint: tree.materials[part.material].pbrMetallicRoughness.baseColorFactor.slice(0, 3),
      };
    });
    return {people, camera: (tree.cameras || [])[0]?.perspective};
  }

  function show(buffer) {
    const scene = buffer ? read(buffer) : {people: []};
    for (const mesh of meshes) for (const name of ["places", "normals", "corners"]) gl.deleteBuffer(mesh[name]);
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    for (const {places} of scene.people)
      for (let i = 0; i < places.length; i++) {
        low[i % 3] = Math.min(low[i % 3], places[i]);
        high[i % 3] = Math.max(high[i % 3], places[i]);
      }
    meshes = scene.people.map(person => ({
      places: stored(gl.ARRAY_BUFFER, person.places), normals: stored(gl.ARRAY_BUFFER, person.normals),
      corners: stored(gl.ELEMENT_ARRAY_BUFFER, person.corners), count: person.corners.length,
      kind: person.corners instanceof Uint32Array ? gl.UNSIGNED_INT : gl.UNSIGNED_SHORT, paint: person.paint,
    }));
    grid = lines(floor(meshes.length ? low : [-2, -1.6, -4], meshes.length ? high : [2, 0, 0]));
    if (meshes.length) {
      const size = Math.hypot(...low.map((value, axis) => high[axis] - value));
      if (-high[2] < 0.5 * size)  // the photographer stood near enough to be seen, too
        for (const axis of [0, 1, 2]) [low[axis], high[axis]] = [Math.min(low[axis], 0), Math.max(high[axis], 0)];
      pivot = low.map((value, axis) => (value + high[axis]) / 2);
      reach = Math.max(0.5, Math.hypot(...low.map((value, axis) => high[axis] - value)) / 2);
    }
    photographer = lines(scene.camera ? frustum(scene.camera) : []);
    const turn = Math.atan2(-pivot[0], -pivot[2]) + 0.6;  // beside the photographer, who would stand in the way
    start = {turn, rise: 0.14, far: reach / Math.sin(0.3), at: pivot};
    reset();
  }

  function floor(low, high) {  // below the lowest foot, from the photographer to behind the last person
    const step = Math.max(high[0] - low[0], -low[2]) > 12 ? 5 : Math.max(high[0] - low[0], -low[2]) > 5 ? 1 : 0.5;
    const down = value => Math.floor(value / step) * step, up = value => Math.ceil(value / step) * step;
    const [x0, x1] = [down(Math.min(low[0], 0) - step), up(Math.max(high[0], 0) + step)];
    const [z0, z1] = [down(low[2] - step), up(Math.max(0, high[2]))], points = [];
    for (let x = x0; x <= x1 + 1e-6; x += step) points.push([x, low[1], z0], [x, low[1], z1]);
    for (let z = z0; z <= z1 + 1e-6; z += step) points.push([x0, low[1], z], [x1, low[1], z]);
    return points;
  }

  function frustum({yfov, aspectRatio}) {  // the camera of the photograph, in the origin
    const z = -0.3, y = -z * Math.tan(yfov / 2), x = y * aspectRatio;
    const corners = [[-x, -y, z], [x, -y, z], [x, y, z], [-x, y, z]];
    const points = corners.flatMap((corner, i) => [[0, 0, 0], corner, corner, corners[(i + 1) % 4]]);
    return points.concat([[-x / 2, y * 1.1, z], [0, y * 1.6, z], [0, y * 1.6, z], [x / 2, y * 1.1, z]]);
  }

  function reset() { look = {...start, at: [...start.at]}; draw(); }

  function axes() {
    const [s, c] = [Math.sin(look.turn), Math.cos(look.turn)], [u, v] = [Math.sin(look.rise), Math.cos(look.rise)];
    return {right: [c, 0, -s], up: [-s * u, v, -c * u], back: [s * v, u, c * v]};
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth * ratio | 0, canvas.clientHeight * ratio | 0];
    if (!width || !height || !look) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const {right, up, back} = axes(), eye = look.at.map((value, i) => value + look.far * back[i]);
    const near = 0.02 * look.far, far = look.far + 40 * reach + 40;
    const zoom = 1 / Math.tan(0.3) * Math.min(1, width / height), dot = axis => axis.reduce((sum, v, i) => sum - v * eye[i], 0);
    const view = [right[0], up[0], back[0], 0, right[1], up[1], back[1], 0, right[2], up[2], back[2], 0,
      dot(right), dot(up), dot(back), 1];
    const lens = [zoom * height / width, 0, 0, 0, 0, zoom, 0, 0, 0, 0, (far + near) / (near - far), -1,
      0, 0, 2 * far * near / (near - far), 0];
    const toClip = new Float32Array(16);
    for (let i = 0; i < 16; i++)
      for (let k = 0; k < 4; k++) toClip[i] += lens[k * 4 + i % 4] * view[(i >> 2) * 4 + k];

    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(surface);
    const key = right.map((value, i) => -0.45 * value + 0.6 * up[i] + 0.66 * back[i]);
    gl.uniformMatrix4fv(gl.getUniformLocation(surface, "toClip"), false, toClip);
    gl.uniform3fv(gl.getUniformLocation(surface, "eye"), eye);
    gl.uniform3fv(gl.getUniformLocation(surface, "key"), key);
    for (const mesh of meshes) {
      gl.uniform3fv(gl.getUniformLocation(surface, "paint"), mesh.paint);
      attribute(surface, "place", mesh.places);
      attribute(surface, "normal", mesh.normals);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, mesh.corners);
      gl.drawElements(gl.TRIANGLES, mesh.count, mesh.kind, 0);
    }
    gl.useProgram(wires);
    gl.uniformMatrix4fv(gl.getUniformLocation(wires, "toClip"), false, toClip);
    for (const [part, grey, alpha] of [[grid, 0.55, 0.45], [photographer, 0.35, 1]]) {
      gl.uniform4f(gl.getUniformLocation(wires, "color"), grey * alpha, grey * alpha, grey * alpha, alpha);
      attribute(wires, "place", part.buffer);
      gl.drawArrays(gl.LINES, 0, part.count);
    }
  }

  function attribute(of, name, buffer) {
    const where = gl.getAttribLocation(of, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(where);
    gl.vertexAttribPointer(where, 3, gl.FLOAT, false, 0, 0);
  }

  function turn(x, y) {
    look.turn -= x;
    look.rise = Math.min(1.55, Math.max(-1.55, look.rise + y));
    draw();
  }

  function zoom(factor) {
    look.far = Math.min(60 * reach, Math.max(0.2 * reach, look.far * factor));
    draw();
  }

  function move(x, y) {
    const {right, up} = axes(), metres = 2 * look.far * Math.tan(0.3) / canvas.clientHeight;
    look.at = look.at.map((value, i) => value + metres * (y * up[i] - x * right[i]));
    draw();
  }

  const fingers = new Map();
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, {x: event.clientX, y: event.clientY});
  });
  canvas.addEventListener("pointermove", event => {
    const before = fingers.get(event.pointerId);
    if (!before || !look) return;
    const wide = fingers.size === 2 ? spread() : 0, [x, y] = [event.clientX - before.x, event.clientY - before.y];
    fingers.set(event.pointerId, {x: event.clientX, y: event.clientY});
    if (wide) zoom(wide / Math.max(1, spread()));
    else if (event.shiftKey || event.buttons & 2) move(x, y);
    else turn(x * 0.008, y * 0.008);
  });
  for (const name of ["pointerup", "pointercancel"])
    canvas.addEventListener(name, event => fingers.delete(event.pointerId));
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    zoom(Math.exp(event.deltaY * 0.001));
  }, {passive: false});
  canvas.addEventListener("contextmenu", event => event.preventDefault());
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener("keydown", event => {
    const by = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1]}[event.key];
    const factor = {"+": 0.9, "=": 0.9, "-": 1 / 0.9}[event.key];
    if (!by && !factor && event.key !== "0" || event.ctrlKey || event.metaKey || !look) return;
    event.preventDefault();
    if (by) turn(...by); else if (factor) zoom(factor); else reset();
  });
  new ResizeObserver(draw).observe(canvas);
  show(null);
  return {show};
}
