// What the rating card and the dial share: the plane, and two ways to make a node. It stands before either of them.
const LOW = -3, HIGH = 3, STEP = .25, SVG = 'http://www.w3.org/2000/svg'
const clip = x => Math.round(Math.min(HIGH, Math.max(LOW, x)) * 100) / 100
const signed = x => (x > 0 ? '+' : x < 0 ? '\u2212' : '') + Math.abs(x).toFixed(2)

function make(tag, props = {}, ...kids) {
  const node = Object.assign(document.createElement(tag), props)
  for (const [k, v] of Object.entries(props.aria ?? {})) node.setAttribute(`aria-${k}`, v)
  node.append(...kids)
  return node
}
function draw(tag, props, ...kids) {
  const node = document.createElementNS(SVG, tag)
  for (const [k, v] of Object.entries(props)) node.setAttribute(k, v)
  node.append(...kids)
  return node
}

// Where an arrow key leads; null = another key
function arrow(key, v, a) {
  const step = {ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP]}[key]
  return step ? [clip((v ?? 0) + step[0]), clip((a ?? 0) + step[1])] : null
}

// The plane: click or drag sets the mark; `moved(v, a)` is told at every place, `released()` when it is let go.
// `under` is a place for drawings below the mark.
function plane(moved, released = () => {}) {
  const text = (x, y, anchor, words) => draw('text', {x, y, 'text-anchor': anchor}, words)
  const lines = [-2, -1, 1, 2].map(k => `M${k}-3V3M-3 ${k}H3`).join('')
  const mark = draw('g', {class: 'er-mark'}, draw('circle', {r: .3}), draw('circle', {r: .08}))
  const label = 'From left to right: unpleasant to pleasant. From bottom to top: calm to stirred. '
    + 'Arrow keys move the mark.'
  const under = draw('g', {class: 'er-under'})
  const svg = draw('svg', {
      viewBox: '-3.3 -3.75 6.6 7.5', class: 'er-plane', tabindex: 0, role: 'application',
      'aria-roledescription': 'plane with one mark',
      'aria-label': label},
    draw('rect', {x: LOW, y: LOW, width: 6, height: 6, rx: .12, class: 'er-field'}),
    draw('path', {d: lines, class: 'er-grid'}),
    draw('path', {d: 'M-3 0H3M0-3V3', class: 'er-axes'}),
    text(-2.9, -.14, 'start', 'unpleasant'), text(2.9, -.14, 'end', 'pleasant'),
    text(0, -3.22, 'middle', 'stirred'), text(0, 3.5, 'middle', 'calm'), under, mark)
  const at = e => {
    const p = new DOMPoint(e.clientX, e.clientY).matrixTransform(svg.getScreenCTM().inverse())
    moved(clip(p.x), clip(-p.y))
  }
  svg.addEventListener('pointerdown', e => {
    if (e.button === 0) {
      svg.setPointerCapture(e.pointerId)
      at(e)
    }
  })
  svg.addEventListener('pointermove', e => { if (svg.hasPointerCapture(e.pointerId)) at(e) })
  svg.addEventListener('lostpointercapture', released)
  const place = (v, a) => {
    mark.style.display = v === null ? 'none' : ''
    if (v !== null) mark.setAttribute('transform', `translate(${v} ${-a})`)
  }
  return {svg, place, under}
}

