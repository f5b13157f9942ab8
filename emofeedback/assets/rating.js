// The rating card. Python sets `card` (what to show); the card sends back what was done with it:
// {do: 'save' | 'skip' | 'undo', turn, ...}.
// The answer is kept here until it is saved, and travels in one message, so that nothing can overtake it.

// Seconds that the picture was in sight: a hidden tab does not count
function stopwatch() {
  let seen = 0, since = null
  const stop = () => {
    if (since !== null) seen += performance.now() - since
    since = null
  }
  const go = () => { since = document.hidden ? null : performance.now() }
  const turned = () => document.hidden ? stop() : go()
  document.addEventListener('visibilitychange', turned)
  return {
    start() {
      seen = 0
      go()
    },
    read: () => (seen + (since === null ? 0 : performance.now() - since)) / 1000,
    end: () => document.removeEventListener('visibilitychange', turned),
  }
}

function render({model, el}) {
  let turn = null, v = null, a = null, emotion = null, waiting = null
  const watch = stopwatch(), words = model.get('card').words
  const field = plane((x, y) => {
    [v, a] = [x, y]
    say('')
    update()
  })
  const picture = make('img', {className: 'er-picture', draggable: false, onload: () => watch.start()})
  const keys = words.map((w, i) => make('button',
    {type: 'button', className: 'er-word', onclick: () => choose(w), aria: {keyshortcuts: `${i + 1}`}},
    make('kbd', {textContent: i + 1, aria: {hidden: true}}), w))
  const button = (name, key, kind, act) => make('button',
    {type: 'button', className: `er-${kind}`, onclick: act, aria: {keyshortcuts: key}},
    name, make('kbd', {textContent: key, aria: {hidden: true}}))
  const save = button('Save', 'Enter', 'save', () => send('save'))
  const skip = button('Skip', 's', 'skip', () => send('skip'))
  const undo = button('Undo', 'u', 'undo', () => send('undo'))
  const bar = make('progress', {aria: {label: 'pictures answered'}}), count = make('span', {className: 'er-count'})
  const where = make('output', {className: 'er-where', aria: {live: 'polite'}})
  const note = make('div', {className: 'er-note', role: 'status'})
  const ask = make('fieldset', {className: 'er-words'}, make('legend', {textContent: 'Which word fits best?'}), ...keys)
  const question = make('div', {className: 'er-question', textContent: 'How does this picture make you feel?'})
  const body = make('div', {className: 'er-body'}, make('figure', {className: 'er-frame'}, picture),
    make('div', {className: 'er-field-box'}, question, field.svg, where))
  const root = make('section', {className: 'er-card', tabIndex: -1, aria: {label: 'Rating of pictures'}},
    make('header', {className: 'er-head'}, count, bar), body, ask,
    make('div', {className: 'er-foot'}, undo, skip, save, note))
  root.dataset.lmSuppressShortcuts = 'true' // JupyterLab must not take 1-8, s, Enter and the arrows for commands
  el.append(root)

  function choose(w) {
    emotion = emotion === w ? null : w
    say('')
    update()
  }
  function say(text) { note.textContent = text }
  function update() {
    field.place(v, a)
    where.textContent = v === null ? 'Click on the plane' : `valence ${signed(v)}, arousal ${signed(a)}`
    keys.forEach((k, i) => k.setAttribute('aria-pressed', words[i] === emotion))
  }
  function send(what) {
    const card = model.get('card')
    if (waiting || (card.finished && what !== 'undo')) return
    if (what === 'save' && v === null) {
      return say('Click on the plane first (or press an arrow key), or skip this picture.')
    }
    waiting = setTimeout(() => {
      waiting = null
      say('No answer from Python yet. Is the kernel busy, or stopped? The answer still stands here: save again.')
    }, 8000)
    model.send({do: what, turn, valence: v, arousal: a, emotion, seconds: Math.round(watch.read() * 100) / 100})
  }
  function show() {
    const card = model.get('card'), mine = root.contains(document.activeElement)
    clearTimeout(waiting)
    waiting = null
    if (card.turn !== turn) {
      turn = card.turn
      v = card.valence
      a = card.arousal
      emotion = card.emotion
      picture.alt = card.alt
      picture.src = card.picture || 'data:,'
      watch.start()
    }
    root.classList.toggle('er-finished', card.finished)
    if (card.finished && mine) root.focus({preventScroll: true}) // what had the focus is gone; u must still work
    bar.max = card.total || 1
    bar.value = card.done
    const place = card.finished ? `all ${card.total} answered` : `picture ${card.done + 1} of ${card.total}`
    count.textContent = `${card.rater}: ${place}`
    undo.setAttribute('aria-disabled', !card.can_undo)
    say(card.note)
    update()
  }
  root.addEventListener('keydown', e => {
    if (e.ctrlKey || e.metaKey || e.altKey) return
    const next = arrow(e.key, v, a)
    const digit = /^[1-9]$/.test(e.key) ? words[e.key - 1] : undefined
    if (next) {
      [v, a] = next
      say('')
      update()
    } else if (digit) choose(digit)
    else if (e.key === 'Enter' && !e.target.closest('.er-foot button')) { if (!e.repeat) send('save') }
    else if (e.key === 's') { if (!e.repeat) send('skip') }
    else if (e.key === 'u') { if (!e.repeat) send('undo') }
    else { // Space and Enter on a button stay with the browser
      if (e.key !== 'Tab') e.stopPropagation()
      return
    }
    e.preventDefault()
    e.stopPropagation()
  })
  root.addEventListener('pointerdown', e => { // a click anywhere makes the keys work
    if (!e.target.closest('button, .er-plane')) root.focus({preventScroll: true})
  })
  model.on('change:card', show)
  show()
  return () => {
    clearTimeout(waiting)
    watch.end()
    model.off('change:card', show)
  }
}
export default {render}
