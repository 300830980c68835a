"""Ray tracing kernels for textured triangles (NVIDIA Warp): the same on a CPU (one thread) and on CUDA.

World frame: z up, metres. All shading is in linear light; textures are sRGB bytes with their mip levels
behind each other in one flat buffer. Import this file lazily: it needs the optional package warp and compiles
its kernels at the first call (about 15 s on a CPU, then cached on disk).
"""

# mypy: ignore-errors
# No `from __future__ import annotations`: warp reads the annotations of kernels as objects.
try:
    import warp as wp
except ImportError as error:
    raise ImportError("rendering synthetic scenes needs warp: pip install 'multihmr[synthetic]'") from error

wp.config.log_level = wp.LOG_ERROR
wp.set_module_options({"enable_backward": False, "fast_math": True})

NO_PERSON = -1
# Constants of the kernels [m], except for the first two.
MIN_ALPHA = wp.constant(0.35)  # texels of alpha-tested materials are opaque above it
MAX_LAYERS = wp.constant(12)  # transparent surfaces that a camera ray passes
SHADOW_OFFSET = wp.constant(4.0e-3)  # of shadow rays from the surface: smooth normals on coarse triangles
RAY_STEP = wp.constant(3.0e-4)  # behind a transparent surface
MAX_DISTANCE = wp.constant(200.0)  # of what a camera ray hits
MAX_SHADOW_DISTANCE = wp.constant(60.0)


@wp.struct
class Material:
    offset: wp.int32  # first byte of the texture in the buffer
    size: wp.int32  # side of its largest level, a power of two
    person: wp.int32
    flags: wp.int32  # 1: alpha-tested, 2: ground, 4: shows the backdrop and takes shadows only
    pattern: wp.int32  # 0 plain, 1 stripes, 2 checks, 3 dots, 4 print (another texture)
    print_offset: wp.int32
    print_size: wp.int32
    keep: wp.float32  # 1: the texture's own colours, 0: its brightness times the pattern's colours
    gain: wp.float32  # 1 / mean brightness of the texture
    gloss: wp.float32
    frequency: wp.float32
    angle: wp.float32
    share: wp.float32
    matrix: wp.mat33  # applied to the texture's own colours
    color_a: wp.vec3
    color_b: wp.vec3


@wp.struct
class View:
    origin: wp.vec3
    rotation: wp.mat33  # world from camera
    focal: wp.float32
    center_x: wp.float32
    center_y: wp.float32
    width: wp.int32
    height: wp.int32
    sun_direction: wp.vec3
    sun: wp.vec3
    sky: wp.vec3  # ambient light from above, and from below
    bounce: wp.vec3
    lamp_position: wp.vec3
    lamp: wp.vec3
    horizon: wp.vec3
    zenith: wp.vec3
    backdrop: wp.int32  # offset of a square picture behind everything, or -1: the sky
    backdrop_size: wp.int32
    backdrop_window: wp.vec4  # u, v of its lower left corner in the picture, then its extent there
    feet: wp.int32  # how many entries of the array of ground contacts count


@wp.struct
class Surface:
    around: wp.uint64  # the mesh of the environment, whose faces come first, if there is one
    people: wp.uint64
    first: wp.int32  # first face of people
    corners_uv: wp.array(dtype=wp.vec2)  # (3 F)
    normals: wp.array(dtype=wp.vec3)  # (V)
    indices: wp.array(dtype=wp.int32)  # (3 F)
    points: wp.array(dtype=wp.vec3)
    face_material: wp.array(dtype=wp.int32)
    materials: wp.array(dtype=Material)
    texels: wp.array(dtype=wp.uint8)
    linear: wp.array(dtype=wp.float32)  # (256) sRGB byte -> linear light
    contacts: wp.array(dtype=wp.vec3)  # x, y, radius


@wp.struct
class SurfaceSample:
    color: wp.vec3
    material: wp.int32
    distance: wp.float32


@wp.func
def fetch(s: Surface, offset: int, side: int, x: int, y: int) -> wp.vec4:
    at = offset + 4 * ((y & (side - 1)) * side + (x & (side - 1)))
    return wp.vec4(
        s.linear[int(s.texels[at])],
        s.linear[int(s.texels[at + 1])],
        s.linear[int(s.texels[at + 2])],
        float(s.texels[at + 3]) / 255.0,
    )


@wp.func
def sample(s: Surface, offset: int, size: int, uv: wp.vec2, footprint: float) -> wp.vec4:
    """Bilinear texel at `uv` (v up) of the level whose texels are about `footprint` finest texels wide."""
    side = int(size)
    at = int(offset)
    wide = float(footprint)
    while wide > 1.5 and side > 4:
        at += 4 * side * side
        side = side / 2
        wide *= 0.5
    x = uv[0] * float(side) - 0.5
    y = (1.0 - uv[1]) * float(side) - 0.5
    column = int(wp.floor(x))
    row = int(wp.floor(y))
    a = x - wp.floor(x)
    b = y - wp.floor(y)
    top = fetch(s, at, side, column, row) * (1.0 - a) + fetch(s, at, side, column + 1, row) * a
    low = fetch(s, at, side, column, row + 1) * (1.0 - a) + fetch(s, at, side, column + 1, row + 1) * a
    return top * (1.0 - b) + low * b


@wp.func
def corner_uv(s: Surface, face: int, u: float, v: float) -> wp.vec2:
    a = s.corners_uv[3 * face]
    b = s.corners_uv[3 * face + 1]
    c = s.corners_uv[3 * face + 2]
    return a * u + b * v + c * (1.0 - u - v)


@wp.func
def texel_density(s: Surface, face: int) -> float:
    """Texture units (u, v) per metre on this triangle."""
    p = s.points[s.indices[3 * face]]
    e = s.points[s.indices[3 * face + 1]] - p
    f = s.points[s.indices[3 * face + 2]] - p
    q = s.corners_uv[3 * face]
    g = s.corners_uv[3 * face + 1] - q
    h = s.corners_uv[3 * face + 2] - q
    return wp.sqrt(wp.abs(g[0] * h[1] - g[1] * h[0]) / (wp.length(wp.cross(e, f)) + 1.0e-12))


@wp.func
def opaque(s: Surface, face: int, u: float, v: float) -> bool:
    m = s.materials[s.face_material[face]]
    if (m.flags & 1) == 0:
        return True
    uv = corner_uv(s, face, u, v)
    side = float(m.size)
    at = m.offset + 4 * (
        (int(wp.floor((1.0 - uv[1]) * side)) & (m.size - 1)) * m.size
        + (int(wp.floor(uv[0] * side)) & (m.size - 1))
    )
    return float(s.texels[at + 3]) > MIN_ALPHA * 255.0


@wp.struct
class Hit:
    face: wp.int32  # -1: nothing
    t: wp.float32
    u: wp.float32
    v: wp.float32
    normal: wp.vec3


@wp.func
def nearest(s: Surface, start: wp.vec3, direction: wp.vec3, reach: float) -> Hit:
    """Nearest hit. The environment has a tree of its own: its few large faces would slow the people's."""
    hit = Hit()
    hit.face = -1
    hit.t = reach
    if s.first > 0:
        a = wp.mesh_query_ray(s.around, start, direction, reach)
        if a.result:
            hit.face = a.face
            hit.t = a.t
            hit.u = a.u
            hit.v = a.v
            hit.normal = a.normal
    b = wp.mesh_query_ray(s.people, start, direction, hit.t)
    if b.result:
        hit.face = s.first + b.face
        hit.t = b.t
        hit.u = b.u
        hit.v = b.v
        hit.normal = b.normal
    return hit


@wp.func
def shadowed(s: Surface, origin: wp.vec3, direction: wp.vec3) -> bool:
    start = wp.vec3(origin)
    for _ in range(6):
        hit = nearest(s, start, direction, MAX_SHADOW_DISTANCE)
        if hit.face < 0:
            return False
        if opaque(s, hit.face, hit.u, hit.v):
            return True
        start = start + direction * (hit.t + RAY_STEP)
    return False


@wp.func
def pattern_color(s: Surface, m: Material, uv: wp.vec2, footprint: float) -> wp.vec3:
    x = (uv[0] * wp.cos(m.angle) - uv[1] * wp.sin(m.angle)) * m.frequency
    y = (uv[0] * wp.sin(m.angle) + uv[1] * wp.cos(m.angle)) * m.frequency
    fx = x - wp.floor(x)
    fy = y - wp.floor(y)
    mix = float(0.0)  # noqa: UP018 - warp: a variable, not a constant
    if m.pattern == 1 and fx < m.share:
        mix = 1.0
    if m.pattern == 2:
        if fx < m.share:
            mix += 0.5
        if fy < m.share:
            mix += 0.5
    if m.pattern == 3 and (fx - 0.5) * (fx - 0.5) + (fy - 0.5) * (fy - 0.5) < m.share * m.share * 0.2:
        mix = 1.0
    if m.pattern == 4:
        t = sample(s, m.print_offset, m.print_size, wp.vec2(x * 0.25, y * 0.25), footprint)
        return wp.cw_mul(wp.vec3(t[0], t[1], t[2]), m.color_a)
    return m.color_a * (1.0 - mix) + m.color_b * mix


@wp.func
def base_color(s: Surface, m: Material, uv: wp.vec2, footprint: float) -> wp.vec3:
    t = sample(s, m.offset, m.size, uv, footprint)
    rgb = wp.vec3(t[0], t[1], t[2])
    own = m.matrix * rgb
    if m.keep < 0.999:
        bright = (0.25 * t[0] + 0.6 * t[1] + 0.15 * t[2]) * m.gain
        painted = pattern_color(s, m, uv, footprint) * wp.min(bright, 2.0)
        own = own * m.keep + painted * (1.0 - m.keep)
    return wp.vec3(wp.clamp(own[0], 0.0, 1.0), wp.clamp(own[1], 0.0, 1.0), wp.clamp(own[2], 0.0, 1.0))


@wp.func
def behind(s: Surface, view: View, direction: wp.vec3, x: float, y: float) -> wp.vec3:
    if view.backdrop >= 0:
        wide = wp.max(float(view.width), float(view.height))
        w = view.backdrop_window
        uv = wp.vec2(w[0] + w[2] * x / wide, w[1] + w[3] * (1.0 - y / wide))
        t = sample(s, view.backdrop, view.backdrop_size, uv, w[3] * float(view.backdrop_size) / wide)
        return wp.vec3(t[0], t[1], t[2])
    up = wp.clamp(direction[2] * 2.0, 0.0, 1.0)
    return view.horizon * (1.0 - up) + view.zenith * up


@wp.func
def contact_shade(s: Surface, view: View, point: wp.vec3) -> float:
    light = float(1.0)  # noqa: UP018 - warp: a variable, not a constant
    for i in range(view.feet):
        c = s.contacts[i]
        d = ((point[0] - c[0]) * (point[0] - c[0]) + (point[1] - c[1]) * (point[1] - c[1])) / (c[2] * c[2])
        light *= 1.0 - 0.55 * wp.exp(-d)
    return light


@wp.func
def lit(
    s: Surface, view: View, m: Material, point: wp.vec3, normal: wp.vec3, look: wp.vec3, base: wp.vec3
) -> wp.vec3:
    facing = wp.dot(normal, view.sun_direction)
    sun = float(0.0)  # noqa: UP018 - warp: a variable, not a constant
    if facing > 0.0 and not shadowed(s, point + normal * SHADOW_OFFSET, view.sun_direction):
        sun = facing
    shine = float(0.0)  # noqa: UP018
    if sun > 0.0 and m.gloss > 0.0:
        half = wp.normalize(view.sun_direction - look)
        shine = wp.min(sun, 1.0) * m.gloss * wp.pow(wp.max(wp.dot(normal, half), 0.0), 24.0)
    up = 0.5 + 0.5 * normal[2]
    ambient = view.sky * up + view.bounce * (1.0 - up)
    if (m.flags & 2) != 0:
        ambient = ambient * contact_shade(s, view, point)
    to_lamp = view.lamp_position - point
    away = wp.length(to_lamp)
    lamp = wp.max(wp.dot(normal, to_lamp) / away, 0.0) / (0.3 + away * away)
    light = ambient + view.sun * sun + view.lamp * lamp
    return wp.cw_mul(base, light) + view.sun * shine


@wp.func
def trace_ray(s: Surface, view: View, x: float, y: float) -> SurfaceSample:
    ray = wp.vec3((x - view.center_x) / view.focal, (y - view.center_y) / view.focal, 1.0)
    direction = wp.normalize(view.rotation * ray)
    found = SurfaceSample()
    found.material = -1
    start = wp.vec3(view.origin)
    gone = float(0.0)  # noqa: UP018 - warp: a variable, not a constant
    for _ in range(MAX_LAYERS):
        hit = nearest(s, start, direction, MAX_DISTANCE)
        if hit.face < 0:
            break
        if opaque(s, hit.face, hit.u, hit.v):
            found.material = s.face_material[hit.face]
            found.distance = gone + hit.t
            m = s.materials[found.material]
            point = start + direction * hit.t
            u = hit.u
            v = hit.v
            normal = wp.normalize(
                s.normals[s.indices[3 * hit.face]] * u
                + s.normals[s.indices[3 * hit.face + 1]] * v
                + s.normals[s.indices[3 * hit.face + 2]] * (1.0 - u - v)
            )
            if wp.dot(normal, direction) > 0.0 and wp.dot(hit.normal, direction) > 0.0:
                normal = -normal
            if (m.flags & 4) != 0:
                light = contact_shade(s, view, point)
                if shadowed(s, point + normal * SHADOW_OFFSET, view.sun_direction):
                    light *= 0.45
                found.color = behind(s, view, direction, x, y) * light
                return found
            slant = wp.max(wp.abs(wp.dot(hit.normal, direction)), 0.15)
            pixel = found.distance / (view.focal * slant)  # metres of surface that a pixel shows
            texels = pixel * texel_density(s, hit.face) * float(m.size)
            base = base_color(s, m, corner_uv(s, hit.face, u, v), texels)
            found.color = lit(s, view, m, point, normal, direction, base)
            return found
        gone += hit.t + RAY_STEP
        start = start + direction * (hit.t + RAY_STEP)
    found.color = behind(s, view, direction, x, y)
    return found


@wp.kernel
def trace_centers(
    s: Surface,
    view: View,
    color: wp.array(dtype=wp.vec3),
    material: wp.array(dtype=wp.int32),
    distance: wp.array(dtype=wp.float32),
):
    i = wp.tid()
    found = trace_ray(s, view, float(i % view.width) + 0.5, float(i / view.width) + 0.5)
    color[i] = found.color
    material[i] = found.material
    distance[i] = found.distance


@wp.kernel
def trace_edges(
    s: Surface,
    view: View,
    pixels: wp.array(dtype=wp.int32),
    offsets: wp.array(dtype=wp.vec2),
    color: wp.array(dtype=wp.vec3),
):
    i = pixels[wp.tid()]
    total = wp.vec3(color[i])
    for k in range(offsets.shape[0]):
        o = offsets[k]
        found = trace_ray(s, view, float(i % view.width) + o[0], float(i / view.width) + o[1])
        total += found.color
    color[i] = total / float(offsets.shape[0] + 1)


@wp.kernel
def trace_people(s: Surface, view: View, person: wp.array(dtype=wp.int32)):
    i = wp.tid()
    x = (float(i % view.width) + 0.5 - view.center_x) / view.focal
    y = (float(i / view.width) + 0.5 - view.center_y) / view.focal
    direction = wp.normalize(view.rotation * wp.vec3(x, y, 1.0))
    start = wp.vec3(view.origin)
    person[i] = -1
    for _ in range(MAX_LAYERS):
        hit = nearest(s, start, direction, MAX_DISTANCE)
        if hit.face < 0:
            return
        if opaque(s, hit.face, hit.u, hit.v):
            person[i] = s.materials[s.face_material[hit.face]].person
            return
        start = start + direction * (hit.t + RAY_STEP)


MATERIAL_DTYPE = Material.numpy_dtype()
