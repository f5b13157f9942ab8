"""usage: eval_base.py FOLDER(pipeline or base-run folder with transformer) TAG [more]"""
import sys, json, warnings
import numpy as np, torch, torch.nn.functional as F
torch.set_num_threads(1); warnings.filterwarnings('ignore')
from pathlib import Path
from emofeedback.generation.sd3 import SD3
from emofeedback.mini.models import bundled, tiny_pipeline
from emofeedback.pipeline import mini_oracle, quiet
from emofeedback.mini.captions import HELD_OUT, LEVELS, MODIFIERS, content_of, neutral
from emofeedback.mini.scenes import *
from emofeedback.make import models as mt
from emofeedback.data.prompts import with_target
from emofeedback.core import Affect, gap
from emofeedback.demo.study import DemoConfig, requests
from emofeedback.images import image_grid
from world2 import painted2, mild
from diffusers import SD3Transformer2DModel, AutoencoderKL
from transformers import CLIPTextModelWithProjection as Tower

def generator(folder):
    folder = Path(folder)
    with quiet():
        if (folder/'model_index.json').exists(): return SD3.from_pretrained(folder, keep_empty_t5=False)
        g = SD3.from_pretrained(bundled('generator'), keep_empty_t5=False)
        g.pipe.transformer = g.net = SD3Transformer2DModel.from_pretrained(folder/'transformer').requires_grad_(False).eval()
        return g

def highpass(x):
    low = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode='bilinear', align_corners=False)
    return (x-low).std((1, 2, 3))

def phrase_table(n=96, seed=5):
    'Painter: shift of V, A (oracle through the VAE) when one attribute takes the level of a phrase in mild scenes'
    f = Path('data/painter_effects.json')
    if f.exists(): return json.loads(f.read_text())
    o = mini_oracle(); vae = AutoencoderKL.from_pretrained(bundled('generator'), subfolder='vae').eval()
    rng = np.random.default_rng(seed); s = sample_scenes(n, rng); a = mild(s.attrs, rng, 0.)
    read = lambda at: o.read(mt.round_trip(vae, paint(Scenes(s.content, at.astype(np.float32), s.seed))))[2].mean(0)
    base, res = read(a), {}
    for p, (k, level) in MODIFIERS.items():
        b = a.copy(); b[:, ATTRS.index(k)] = level
        res[p] = (read(b)-base).tolist()
    f.write_text(json.dumps(res))
    return res

if __name__=='__main__':
    folder, tag = sys.argv[1], sys.argv[2]
    g, o = generator(folder), mini_oracle()
    vae = g.pipe.vae
    res = {}
    def read(texts, seed): return o.read(g.sample(texts, 8, generator=torch.Generator().manual_seed(seed)))
    plain = [read([c]*24, k) for k, c in enumerate(HELD_OUT)]
    va = torch.stack([p[2] for p in plain])
    res['within_sd'] = va.std(1).mean(0).tolist(); res['between_sd'] = va.mean(1).std(0).tolist(); res['mean'] = va.mean((0, 1)).tolist()
    res['content_plain'] = np.mean([(p[1].argmax(1)==CONTENTS.index(content_of(c))).float().mean().item() for p, c in zip(plain, HELD_OUT)])
    w = requests(DemoConfig(seed=11)); 
    x = g.sample([p.text for p in w]*2, 8, generator=torch.Generator().manual_seed(777))
    f, l, r = o.read(x); t = torch.tensor([list(p.target) for p in w]*2)
    res['request_error'] = (r-t).abs().mean(0).tolist(); res['corr'] = [np.corrcoef(r[:, i], t[:, i])[0, 1] for i in (0, 1)]
    res['slope'] = [np.polyfit(t[:, i], r[:, i], 1)[0] for i in (0, 1)]
    res['content_requests'] = np.mean([o2==content_of(p.content) for o2, p in zip(o.content(x), w*2)])
    eff, pe = {}, phrase_table()
    b = va.mean((0, 1))
    for p in MODIFIERS: eff[p] = (read([f'{c}, {p}' for c in HELD_OUT for _ in range(12)], 3)[2].mean(0)-b).tolist()
    ratio = {p: float(np.dot(eff[p], pe[p])/np.dot(pe[p], pe[p])) for p in MODIFIERS}
    strong = {}
    for p, (k, level) in MODIFIERS.items():
        if p==max((q for q in MODIFIERS if MODIFIERS[q][0]==k), key=lambda q: np.linalg.norm(pe[q])): strong[k] = (p, round(ratio[p], 2), [round(v, 2) for v in eff[p]], [round(v, 2) for v in pe[p]])
    res['strongest'] = strong
    res['ratio'] = {p: round(r, 2) for p, r in ratio.items()}
    d = painted2(512, 3000)
    from base2 import cap, load
    m0 = np.array([-.239, -.478]); rng = np.random.default_rng(5)
    caps = [cap(*q, m0, rng) for q in zip(d['content'].tolist(), d['attrs'].numpy(), d['va'].numpy(), d['kind'].tolist())]
    caps = [c if len(g.pipe.tokenizer(c, truncation=False).input_ids)<=32 else c.rsplit(',', 1)[0] for c in caps]
    y = g.sample(caps, 8, generator=torch.Generator().manual_seed(9)); rt = mt.round_trip(vae, mt.pixels(d))
    h1, h2 = highpass(y), highpass(rt)
    res['sharpness'] = (h1.mean()/h2.mean()).item()
    res['sharpness_by_content'] = {c: round((h1[d['content']==k].mean()/h2[d['content']==k].mean()).item(), 3) for k, c in enumerate(CONTENTS)}
    res['render_sharpness_vs_vae'] = (highpass(mt.pixels(d)).mean()/h2.mean()).item()
    res['caption_error'] = (o.read(y)[2]-d['va']).abs().mean(0).tolist()
    res['content_captions'] = (o.read(y)[1].argmax(1)==d['content']).float().mean().item()
    res['lightning'] = dict(asked=o.read(y)[0][:, FACTORS.index('lightning')][(d['attrs'][:, ATTRS.index('lightning')]>.6)].mean().item(), painter=o.read(rt)[0][:, FACTORS.index('lightning')][(d['attrs'][:, ATTRS.index('lightning')]>.6)].mean().item())
    r3 = lambda v: round(v, 3) if isinstance(v, float) else [r3(q) for q in v] if isinstance(v, (list, tuple)) else {k: r3(q) for k, q in v.items()} if isinstance(v, dict) else v if isinstance(v, str) else round(float(v), 3)
    res = r3(res); Path(f'out/eval_{tag}.json').write_text(json.dumps(res, indent=1))
    for k, v in res.items(): print(k, v)
    # sheet: painter, painter through VAE, old base, this base
    old = generator(bundled('generator'))
    for page, kind in (('mild', 1), ('marked', 2), ('wide', 0)):
        ids = [int(torch.nonzero((d['content']==k)&(d['kind']==kind))[j]) for k in range(8) for j in (0,)]
        cs = [neutral(CONTENTS[d['content'][i]]) if kind==1 else caps[i] for i in ids]
        s = lambda m, sd: m.sample(cs, 8, generator=torch.Generator().manual_seed(sd))
        image_grid(torch.cat([mt.pixels(d)[ids], rt[ids], s(old, 1), s(g, 1), s(g, 2)]), 8, size=150).save(f'fig/sheet_{tag}_{page}.png')
        print(page, cs)
