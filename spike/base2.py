"""Base v2. usage: base2.py OUT json"""
import sys, time, json, os, math
import numpy as np, torch, torch.nn.functional as F
torch.set_num_threads(1)
from pathlib import Path
from diffusers import AutoencoderKL, SD3Transformer2DModel
from transformers import CLIPTextModelWithProjection as Tower
from emofeedback.make import models as mt
from emofeedback.mini.models import bundled, tiny_pipeline
from emofeedback.mini.scenes import ATTRS, CONTENTS
from emofeedback.mini.captions import DETAILS, neutral, phrase
from emofeedback.affect import nearest_word
from emofeedback.data.prompts import with_target
from emofeedback.core import Affect
from emofeedback.understanding.sft import optimizers
from world2 import WIDE, MILD, MARKED

def net(w=128, d=3, p=4, seed=0):
    torch.manual_seed(seed)
    return SD3Transformer2DModel(sample_size=16, patch_size=p, in_channels=4, out_channels=4, num_layers=d, attention_head_dim=32,
        num_attention_heads=w//32, joint_attention_dim=128, caption_projection_dim=w, pooled_projection_dim=128, pos_embed_max_size=32//p, qk_norm='rms_norm')

def cap(content, attrs, va, kind, m0, rng):
    name = CONTENTS[content]
    det = DETAILS[name][rng.integers(2)] if rng.random()<.35 else None
    noisy = lambda sd: Affect.clamp(*(va+rng.normal(0, sd, 2)))
    if kind==MILD:
        told = lambda: Affect.clamp(*np.clip(2.2*(va-m0)+rng.normal(0, .9, 2), -3, 3))
        k = rng.random()
        if k<.4: return neutral(name, det)
        if k<.85: return with_target(neutral(name, det), told())
        return neutral(nearest_word(told())+' '+name, det)
    word = rng.random()<(.15 if kind==WIDE else .08)
    s = neutral(nearest_word(noisy(1.2))+' '+name if word else name, det)
    said = [p for q, x in zip(ATTRS, attrs) if (p := phrase(q, x)) and rng.random()<(.85 if kind==WIDE else .97)]
    rng.shuffle(said)
    s = ', '.join([s]+said[:4])
    return with_target(s, noisy(1.2)) if rng.random()<(.3 if kind==WIDE else .55) else s

def load(files):
    ds = [torch.load(f, weights_only=True) for f in files]
    return {k: torch.cat([d[k] for d in ds]) for k in ds[0]}

if __name__=='__main__':
    out = Path(sys.argv[1]); out.mkdir(parents=True, exist_ok=True)
    o = dict(w=128, d=3, p=4, muon=True, lr=3e-3, mlr=5e-3, batch=64, seconds=None, steps=100000, decay_at=None, end=None, ncap=8)|json.loads(sys.argv[2] if len(sys.argv)>2 else '{}')
    data = load(['data/a.pt', 'data/b.pt'])
    n = len(data['x'])
    m0 = data['va'][data['kind']==MILD].mean(0).numpy()
    vae = AutoencoderKL.from_pretrained(bundled('generator'), subfolder='vae').eval()
    towers = [Tower.from_pretrained(bundled('generator'), subfolder=s).eval() for s in ('text_encoder', 'text_encoder_2')]
    pipe = tiny_pipeline(vae, towers, transformer=net(o['w'], o['d'], o['p']), seed=0)
    f = Path('data/latents.pt')
    if f.exists(): z = torch.load(f, weights_only=True)
    else:
        z = torch.stack([torch.cat([mt.latents(vae, b.float()/255) for b in x.split(2000)]) for x in (data['x'], data['x'].flip(3))]).half()
        torch.save(z, f)
    f = Path('data/ids.pt')
    if f.exists(): ids = torch.load(f, weights_only=True)
    else:
        rng0 = np.random.default_rng(0)
        rows = list(zip(data['content'].tolist(), data['attrs'].numpy(), data['va'].numpy(), data['kind'].tolist()))
        said = [[cap(*r, m0, rng0) for r in rows] for _ in range(o['ncap'])]
        ids = torch.stack([mt.tokens(pipe.tokenizer, s) for s in said]).short()
        long = max(len(pipe.tokenizer(s, truncation=False).input_ids) for s in said[0])
        print('longest caption', long, 'share over 32', np.mean([len(pipe.tokenizer(s, truncation=False).input_ids)>32 for s in said[0][:5000]]))
        for i in range(12): print(data['kind'][i].item(), said[0][i])
        torch.save(ids, f)
    empty, model = mt.tokens(pipe.tokenizer, ['']), pipe.transformer
    if o['muon']: opts = optimizers(model, o['lr'], o['mlr'])
    else: opts = [torch.optim.AdamW(model.parameters(), o['lr'], betas=(.9, .99), weight_decay=.01)]
    rates = [[g['lr'] for g in q.param_groups] for q in opts]
    params = list(model.parameters())
    avg = [p.detach().clone() for p in params]
    step, used, losses = 0, 0., []
    state = out/'state.pt'
    def save():
        torch.save(dict(step=step, used=used, losses=losses[-1000:], avg=avg, params=[p.data for p in params], opts=[q.state_dict() for q in opts]), out/'state.new')
        os.replace(out/'state.new', state)
    if state.exists():
        s = torch.load(state, weights_only=True)
        step, used, losses, avg = s['step'], s['used'], s['losses'], s['avg']
        for p, q in zip(params, s['params']): p.data.copy_(q)
        for q, w in zip(opts, s['opts']): q.load_state_dict(w)
    def batch_loss(rng, b, dropout=.1):
        i = torch.from_numpy(rng.integers(0, n, b))
        x = z[torch.randint(0, 2, (b,)), i].float()
        text = torch.where(torch.rand(b, 1)<dropout, empty, ids[torch.randint(0, len(ids), (b,)), i].long())
        e, pooled = mt.embed(pipe, text)
        if rng.random()<.15: e = torch.cat([e, torch.zeros_like(e)], 1)
        eps, s = torch.randn_like(x), torch.randn(b).sigmoid().view(-1, 1, 1, 1)
        v = model((1-s)*x+s*eps, encoder_hidden_states=e, pooled_projections=pooled, timestep=s.flatten()*1000, return_dict=False)[0]
        return (v-(eps-x)).square().flatten(1).mean(1), s.flatten()
    @torch.no_grad()
    def swapped(fn):
        keep = [p.data for p in params]
        for p, q in zip(params, avg): p.data = q
        try: return fn()
        finally:
            for p, q in zip(params, keep): p.data = q
    @torch.no_grad()
    def validate():
        g = torch.get_rng_state()
        torch.manual_seed(12345); L = [batch_loss(np.random.default_rng(k), 256, 0.) for k in range(8)]
        torch.set_rng_state(g)
        l, s = torch.cat([a for a, b in L]), torch.cat([b for a, b in L])
        return [round(l.mean().item(), 4)]+[round(l[(s>=a)&(s<b)].mean().item(), 4) for a, b in ((0, .3), (.3, .5), (.5, .7), (.7, 1))]
    control = out/'control.json' # {"decay_at": step, "end": step}: may be written while this runs
    last_save, t_look = time.time(), used
    while True:
        c = json.loads(control.read_text()) if step%50==0 and control.exists() else (c if step%50 else {})
        decay_at, end = c.get('decay_at', o['decay_at']), c.get('end', o['end'])
        if o['seconds']: share = max(0, (used/o['seconds']-.6)/.4); stop = used>=o['seconds']
        else: share = max(0, (step-decay_at)/(end-decay_at)) if decay_at else 0.; stop = bool(end and step>=end)
        if stop: break
        t = time.process_time()
        torch.manual_seed(step+1)
        for q, full in zip(opts, rates):
            for g, r in zip(q.param_groups, full): g['lr'] = r*min(1, (step+1)/100)*max(.01, 1-share)
        l, _ = batch_loss(np.random.default_rng((0, step)), o['batch'])
        loss = l.mean()
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.)
        for q in opts: q.step()
        torch._foreach_lerp_(avg, [p.detach() for p in params], 1-min(.999, (step+1)/(step+10)))
        losses.append(loss.item()); step += 1; used += time.process_time()-t
        if step%1000==0 or (o['seconds'] and used-t_look>25):
            t_look = used
            print(step, round(used), 'loss', round(float(np.mean(losses[-500:])), 4), 'ema val', swapped(validate), flush=True)
        if time.time()-last_save>120 and not o['seconds']:
            save(); last_save = time.time()
            swapped(lambda: model.save_pretrained(out/'transformer'))
    save() if not o['seconds'] else None
    print('end', step, round(used), swapped(validate), flush=True)
    for p, q in zip(params, avg): p.data.copy_(q)
    pipe.save_pretrained(out)
