import json, sys, glob
import numpy as np, matplotlib; matplotlib.use('Agg'); import matplotlib.pyplot as plt
tag = sys.argv[1] if len(sys.argv)>1 else 'grpo'
runs = [json.load(open(f)) for f in sorted(glob.glob(f'out/{tag}_seed*.json'))]
fig, ax = plt.subplots(1, 3, figsize=(13, 3.6))
for r in runs:
    for a, s in zip(ax, ('new', 'wide')):
        e = [h for h in r if f'{s}_v' in h]
        a.plot([h['step'] for h in e], [h[f'{s}_v'] for h in e], 'o-', c='#4c72b0'); a.plot([h['step'] for h in e], [h[f'{s}_a'] for h in e], 's-', c='#dd8452')
        a.set(title=f'error with reasons, {s} prior (blue V, orange A)', xlabel='update', ylim=(0, .75))
    for k, c in zip(('rewards/format_reward/mean', 'rewards/va_reward/mean', 'rewards/emotion_reward/mean'), ('.5', '#55a868', '#c44e52')):
        e = [h for h in r if k in h]
        ax[2].plot([h['step'] for h in e][2:-2], np.convolve([h[k] for h in e], np.ones(5)/5, 'valid'), c=c, lw=1, label=k.split('/')[1] if r is runs[0] else None)
ax[2].legend(); ax[2].set(title='reward parts (5-update mean)', xlabel='update'); fig.tight_layout(); fig.savefig(f'fig/{tag}_curves.png', dpi=110)
