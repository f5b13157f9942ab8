// Search: a heading that is what was typed, such as that of a class, before pages that speak of it
document.addEventListener('DOMContentLoaded', () => {
  if (window.Scorer) Scorer.score = ([, , , , score, , kind]) => kind === 'title' ? 2 * score : score
})
