'The plane on the landing page: recorded pictures of a few scenes at 25 points of it, before and after training'
import json
from pathlib import Path

import numpy as np
from PIL import Image

import plan

demo = plan.nbs/'recorded/demo'
SIDE, GAP, N = 64, 2, 5 # pixels of a picture and between two in a recorded sheet; pictures along an axis
SYSTEMS = dict(base='base', rf='trained')

def scenes() -> list[str]:
    'Scenes of which sheets are recorded'
    return json.loads((demo/'run.json').read_text(encoding='utf-8'))['scenes'][:len(list(demo.glob('rf_*.png')))]

def without_gaps(sheet:np.ndarray) -> np.ndarray:
    'A sheet, its pictures side by side'
    at = [i*(SIDE+GAP)+j for i in range(N) for j in range(SIDE)]
    return sheet[at][:, at]

def write_sheets(folder:Path) -> None:
    'Write the pictures that the landing page shows'
    for name in SYSTEMS:
        for k in range(len(scenes())):
            sheet = without_gaps(np.asarray(Image.open(demo/f'{name}_{k}.png').convert('RGB')))
            Image.fromarray(sheet).save(folder/f'plane_{name}_{k}.webp', quality=88)

def landing() -> str:
    'The plane as HTML: plain pictures, which docs/_static/plane.js brings to life'
    names = scenes()
    run = json.loads((demo/'run.json').read_text(encoding='utf-8'))
    knobs = ''.join(f'<button type="button">{o}</button>' for o in names)
    alt = f'25 pictures of {names[0]} drawn by the trained generator: to the right more pleasant, upwards more stirred'
    def shown(system):
        return (f'<figure><div class="plane-one" data-system="{system}" role="img" aria-label="{names[0]}, '
                f'{SYSTEMS[system]}"></div><figcaption>{SYSTEMS[system]}</figcaption></figure>')
    return f'''```{{raw}} html
<div class="plane" data-scenes='{json.dumps(names)}'>
<div class="plane-map"><span class="plane-y">arousal: calm to stirred</span>
<div class="plane-sheet" tabindex="0" role="application" aria-label="The plane of feelings: move with the arrow keys">
<img src="_static/plane_rf_0.webp" width="320" height="320" alt="{alt}"><i hidden></i></div>
<span class="plane-x">valence: unpleasant to pleasant</span></div>
<div class="plane-side" hidden><p class="plane-knobs">{knobs}</p>
<div class="plane-pair">{shown('base')}{shown('rf')}</div>
<p class="plane-said" aria-live="polite"></p></div>
</div>
```

{{.plane-note}}
Point at the plane, or go there with the arrow keys: the same scene and noise, drawn by the mini generator before and
after {run['updates']} updates of reward feedback. Recorded pictures of `emofeedback demo`, seed {run['seed']}.'''
