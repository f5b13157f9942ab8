// The plane on the landing page: base beside trained where the pointer or the arrow keys are
document.addEventListener('DOMContentLoaded', () => {
  const root = document.querySelector('.plane')
  if (!root) return
  const N = 5, scenes = JSON.parse(root.dataset.scenes)
  const sheet = root.querySelector('.plane-sheet'), img = sheet.querySelector('img'), mark = sheet.querySelector('i')
  const ones = [...root.querySelectorAll('.plane-one')], knobs = [...root.querySelectorAll('.plane-knobs button')]
  const said = root.querySelector('.plane-said')
  const file = (system, k) => img.src.replace(/plane_\w+_\d+/, `plane_${system}_${k}`)
  let scene = 0, x = 4, y = 0 // column and row of the picture
  const number = n => String(n).replace('-', '−')

  function show() {
    const v = x-2, a = 2-y
    img.src = file('rf', scene)
    mark.style.left = `${20*x}%`
    mark.style.top = `${20*y}%`
    for (const o of ones) {
      o.style.backgroundImage = `url("${file(o.dataset.system, scene)}")`
      o.style.backgroundPosition = `${25*x}% ${25*y}%`
      o.setAttribute('aria-label', `${scenes[scene]}, ${o.nextElementSibling.textContent}, valence ${v}, arousal ${a}`)
    }
    knobs.forEach((o, k) => o.setAttribute('aria-pressed', k === scene))
    said.textContent = `valence ${number(v)}, arousal ${number(a)}`
  }
  function go(i, j) {
    x = Math.min(N-1, Math.max(0, i))
    y = Math.min(N-1, Math.max(0, j))
    show()
  }
  function point(e) {
    const r = sheet.getBoundingClientRect()
    go(Math.floor(N*(e.clientX-r.left)/r.width), Math.floor(N*(e.clientY-r.top)/r.height))
  }
  sheet.addEventListener('pointermove', point)
  sheet.addEventListener('pointerdown', point)
  sheet.addEventListener('keydown', e => {
    const by = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key]
    if (!by) return
    e.preventDefault()
    e.stopPropagation() // the theme turns pages with these keys
    go(x+by[0], y+by[1])
  })
  knobs.forEach((o, k) => o.addEventListener('click', () => { scene = k; show() }))
  root.querySelector('.plane-side').hidden = mark.hidden = false
  show()
})
