import torch, sys
torch.set_num_threads(1)
from emofeedback.mini.oracle import Oracle
from emofeedback.mini.models import bundled
from emofeedback.mini.scenes import *
from world2 import painted2
from emofeedback.make import models as mt
from pathlib import Path
o = Oracle.from_pretrained(sys.argv[1] if len(sys.argv)>1 else bundled('oracle')).eval()
f = Path('data/oracle_test.pt')
if not f.exists(): torch.save(dict(new=painted2(2000, 2000), wide=mt.painted(1000, 2)), f)
sets = torch.load(f, weights_only=True)
from diffusers import AutoencoderKL
vae = AutoencoderKL.from_pretrained(bundled('generator'), subfolder='vae').eval()
for name, d in sets.items():
    for how, x in (('renders', mt.pixels(d)), ('vae', mt.round_trip(vae, mt.pixels(d)))):
        f, l, va = o.read(x)
        e = va-d['va']
        kinds = d.get('kind', torch.zeros(len(x)))
        for k in sorted(set(kinds.tolist())):
            m = kinds==k
            print(name, how, 'kind', k, 'R2', [round(q, 3) for q in (1-e[m].square().mean(0)/d['va'][m].var(0)).tolist()], 'MAE', [round(q, 3) for q in e[m].abs().mean(0).tolist()], 'content', round((l[m].argmax(1)==d['content'][m]).float().mean().item(), 4))
        print(name, how, 'all', 'R2', [round(q, 3) for q in (1-e.square().mean(0)/d['va'].var(0)).tolist()], 'MAE', [round(q, 3) for q in e.abs().mean(0).tolist()], 'content', round((l.argmax(1)==d['content']).float().mean().item(), 4), flush=True)
