// The emotion dial. The browser sets where the mark stands and what shall be drawn: `prompt`, `seed`, `valence`,
// `arousal`, `compare`, and `held` while the mark moves. Python answers with `drawn` (pictures), `read` (how the judge
// reads them) and `path` (where the dial has been). While Python draws, Jupyter keeps the newest setting only.
const pair = (v, a) => `valence ${signed(v)}, arousal ${signed(a)}`

function render({model, el}) {
  const get = k => model.get(k), choices = get('choices')
  let waiting = null
  const field = plane((v, a) => set({valence: v, arousal: a, held: true}), () => set({held: false}))
  const line = draw('polyline', {class: 'ed-line'}), dots = draw('g', {})
  field.under.append(line, dots)

  const words = make('input', {type: 'text', className: 'ed-prompt', onchange: () => set({prompt: words.value})})
  const seed = make('input', {type: 'number', className: 'ed-seed', min: 0, step: 1,
    onchange: () => set({seed: Math.max(0, Math.trunc(Number(seed.value) || 0))})})
  const next = make('button', {type: 'button', className: 'ed-next', textContent: 'another',
    onclick: () => set({seed: get('seed') + 1})})
  const picks = choices.map(k => make('button',
    {type: 'button', className: 'ed-pick', textContent: k, onclick: () => set({compare: k})}))
  const where = make('output', {className: 'er-where', aria: {live: 'polite'}})
  const pictures = make('div', {className: 'ed-pictures'}), strip = make('ol', {className: 'ed-strip'})
  const note = make('div', {className: 'er-note', role: 'status'}), clock = make('span', {className: 'ed-clock'})
  const group = make('div', {className: 'ed-picks', role: 'group', hidden: choices.length < 2,
    aria: {label: 'which generator draws'}}, ...picks)
  const root = make('section', {className: 'er-card ed-card', tabIndex: -1, aria: {label: 'Emotion dial'}},
    make('div', {className: 'ed-head'}, make('label', {className: 'ed-wide'}, 'Scene', words),
      make('label', {}, 'Seed', seed), next),
    make('div', {className: 'er-body'}, make('div', {className: 'er-field-box'}, field.svg, where),
      make('div', {className: 'ed-right'}, group, pictures, make('div', {className: 'ed-foot'}, note, clock))),
    strip)
  root.dataset.lmSuppressShortcuts = 'true' // JupyterLab must not take letters and arrows for commands
  el.append(root)

  function set(changes) {
    for (const [k, v] of Object.entries(changes)) model.set(k, v)
    model.save_changes()
    clearTimeout(waiting)
    waiting = setTimeout(() => {
      note.textContent = 'No answer from Python yet. Is the kernel busy, or stopped? Run the cell again.'
    }, 8000)
    settings()
  }
  function settings() {
    const v = get('valence'), a = get('arousal')
    field.place(v, a)
    where.textContent = pair(v, a)
    if (words !== document.activeElement) words.value = get('prompt')
    if (seed !== document.activeElement) seed.value = get('seed')
    picks.forEach(k => k.setAttribute('aria-pressed', k.textContent === get('compare')))
  }
  function answered() {
    clearTimeout(waiting)
    note.textContent = get('note')
  }
  function shown() {
    answered()
    const {pictures: found = [], seconds} = get('drawn')
    clock.textContent = seconds === undefined ? '' : `drawn in ${seconds.toFixed(2)} s`
    pictures.replaceChildren(...found.map(o => make('figure', {},
      make('img', {src: o.picture, draggable: false, alt: `${get('prompt')}, drawn by the ${o.name} generator`}),
      make('figcaption', {}, make('b', {textContent: o.name}), make('span', {className: `ed-says ed-${o.name}`})))))
    read()
  }
  function read() {
    const {pictures: found = []} = get('drawn'), readings = get('read')
    const says = pictures.querySelectorAll('.ed-says')
    dots.replaceChildren()
    readings.forEach((o, i) => {
      if (says[i]) says[i].textContent = o ? `read as ${signed(o.v)}, ${signed(o.a)}` : 'not readable'
      if (o && found[i]) dots.append(draw('circle', {cx: o.v, cy: -o.a, r: .16, class: `ed-dot ed-${found[i].name}`}))
    })
  }
  function walked() {
    const path = get('path')
    line.setAttribute('points', path.map(o => `${o.valence},${-o.arousal}`).join(' '))
    strip.replaceChildren(...path.map(({picture, ...place}) => {
      const name = `back to ${place.prompt}, ${pair(place.valence, place.arousal)}, seed ${place.seed}`
      return make('li', {}, make('button', {type: 'button', title: name, aria: {label: name},
        onclick: () => set({...place, held: false})}, make('img', {src: picture, alt: ''})))
    }))
    strip.scrollLeft = strip.scrollWidth
  }
  field.svg.addEventListener('keydown', e => {
    const to = e.ctrlKey || e.metaKey || e.altKey ? null : arrow(e.key, get('valence'), get('arousal'))
    if (!to) return
    e.preventDefault()
    set({valence: to[0], arousal: to[1], held: true})
  })
  const stay = () => { if (get('held')) set({held: false}) }
  field.svg.addEventListener('keyup', stay)
  field.svg.addEventListener('blur', stay)
  root.addEventListener('keydown', e => {
    if (e.key === 'Enter' && e.target === words) words.blur()
    if (e.key !== 'Tab') e.stopPropagation()
  })

  const own = ['prompt', 'seed', 'valence', 'arousal', 'compare'].map(k => [`change:${k}`, settings])
  const hears = [...own, ['change:drawn', shown], ['change:read', read], ['change:note', answered],
    ['change:path', walked]]
  for (const [what, f] of hears) model.on(what, f)
  settings()
  shown()
  walked()
  return () => {
    clearTimeout(waiting)
    for (const [what, f] of hears) model.off(what, f)
  }
}
export default {render}
