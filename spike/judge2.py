"""Judge: eyes first. usage: judge2.py STAGE json; stages: vision frozen both cold"""
import sys, time, json, os, itertools
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
torch.set_num_threads(1)
from pathlib import Path
from emofeedback.make import models as mt
from emofeedback.make.judge import MiniExamples, judge_pictures, corpus
import emofeedback.make.judge as mj
from emofeedback.mini.models import bundled, tiny_judge
from emofeedback.mini.scenes import ATTRS, CONTENTS, Scenes, affect_of, colour_stats, factors_of
from emofeedback.mini.captions import MODIFIERS, DETAILS, neutral, think, phrase
from emofeedback.affect import WORDS
from emofeedback.processor import tiny_processor, load_processor
from emofeedback.understanding.sft import PixelBank, Pixels, sft, optimizers, wsd
from emofeedback.understanding.judge import LVLMJudge, load_model
from emofeedback.core import Affect, gap
from diffusers import AutoencoderKL
from base2 import load

def qwen(tok, seed=0):
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
    c = tok.convert_tokens_to_ids
    pad, end = c('<|endoftext|>'), c('<|im_end|>')
    torch.manual_seed(seed)
    m = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(
        vision_config=dict(depth=4, hidden_size=128, num_heads=4, intermediate_size=384, out_hidden_size=192, patch_size=8, window_size=112, fullatt_block_indexes=[0, 1, 2, 3]),
        text_config=dict(vocab_size=(len(tok)+15)//16*16, hidden_size=192, intermediate_size=512, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
            max_position_embeddings=2048, max_window_layers=3, rope_parameters=dict(rope_type='default', rope_theta=1e4, mrope_section=[4, 6, 6]),
            bos_token_id=pad, eos_token_id=end, pad_token_id=pad, tie_word_embeddings=True),
        image_token_id=c('<|image_pad|>'), video_token_id=c('<|video_pad|>'), vision_start_token_id=c('<|vision_start|>'), vision_end_token_id=c('<|vision_end|>'), tie_word_embeddings=True))
    m.generation_config.update(eos_token_id=[end, pad], pad_token_id=pad, bos_token_id=pad)
    return m

class CompactBank:
    'Pictures cut into patches once, kept as bytes: a quarter of the memory of float16, and exact'
    def __init__(self, processor, images, batch=256):
        ip = processor.image_processor
        self.p, self.t = ip.patch_size, ip.temporal_patch_size
        self.mean, self.std = (torch.tensor(o).view(1, 3, 1, 1, 1) for o in (ip.image_mean, ip.image_std))
        parts, grids = [], []
        from emofeedback.images import to_pil
        for x in images.split(batch):
            o = ip(to_pil(x), return_tensors='pt')
            v = o['pixel_values'].view(-1, 3, self.t, self.p, self.p)[:, :, :1]
            parts.append(((v*self.std+self.mean)*255).round().byte()); grids.append(o['image_grid_thw'])
        self.grid = torch.cat(grids)
        self.bytes = torch.cat(parts).view(len(self.grid), -1, 3, 1, self.p, self.p)
    def __len__(self): return len(self.grid)
    def values(self, i): # patches of several pictures
        v = (self.bytes[i].flatten(0, 1).float()/255-self.mean)/self.std
        return v.expand(-1, -1, self.t, -1, -1).reshape(len(v), -1)
    def __getitem__(self, i): return Pixels(self.values([int(i)]), self.grid[int(i)])

class Examples2(MiniExamples):
    'MiniExamples whose labels are those of the very pixels that are shown'
    def __init__(self, processor, bank, content, attrs, gold, shrink=1., noise=0., kinds=(.35, .45, .2)):
        self.bank, self.kinds, self.content, self.attrs, self.gold = bank, kinds, content, attrs, gold
        self.label = gold*shrink+np.random.default_rng(0).normal(0, noise, gold.shape)
        self.of_kind = [np.flatnonzero(content==k) for k in range(len(CONTENTS))]

class Heads(nn.Module):
    'Four attention pools over the visual tokens, then linear: what the eyes have to know'
    def __init__(self, d=192):
        super().__init__()
        self.q, self.o = nn.Linear(d, 4), nn.Linear(4*d, 13+8+2+4)
    def forward(self, t): # (B,16,d)
        return self.o(torch.einsum('btk,btd->bkd', self.q(t).softmax(1), t).flatten(1))

def see(model, vals, grid):
    o = model.model.visual(vals, grid_thw=grid)
    o = o.pooler_output if hasattr(o, 'pooler_output') else o
    if isinstance(o, (list, tuple)): o = torch.cat(o)
    return o.view(len(grid), -1, o.shape[-1])

def scenes_of(d, i=slice(None)): return Scenes(d['content'][i].numpy(), d['attrs'][i].numpy(), None)

def extra_corpus(rng, n=1500):
    words = ('much higher', 'higher', 'same', 'lower', 'much lower')
    for _ in range(n):
        p, q, r = rng.choice(list(MODIFIERS), 3, replace=False)
        c = CONTENTS[rng.integers(8)]
        yield f'the best shows {c}, {p}; it lacks {q}; need {rng.choice(words)} valence, {rng.choice(words)} arousal; add {q}, remove {p}, replace {p} by {r}'
        yield f'<think>{p}</think><answer>{{"valence": {rng.uniform(-3, 3):.1f}, "arousal": {rng.uniform(-3, 3):.1f}, "add": "{q}", "remove": "{p}"}}</answer>'
        yield ' '.join([rng.choice(list(WORDS)), c, p])

def setup(n=60000, test_only=False):
    vae = AutoencoderKL.from_pretrained(bundled('generator'), subfolder='vae').eval()
    f = Path('data/judge.pt')
    if not f.exists():
        data = load(['data/a.pt', 'data/b.pt'])
        x = judge_pictures(mt.pixels(data), vae, 0)
        order = torch.cat([torch.arange(len(x))[::2], torch.arange(len(x))[1::2]])
        va = affect_of(colour_stats(x), factors_of(scenes_of(data, order)))
        torch.save(dict(x=(x*255).round().byte(), content=data['content'][order], attrs=data['attrs'][order], va=va, kind=data['kind'][order]), f)
    d = torch.load(f, weights_only=True)
    if not Path('out/processor').exists():
        data = {k: v[:64] for k, v in d.items()}
        probe = MiniExamples(tiny_judge(seed=0)[1], data, mt.pixels(data)); probe.of_kind = [np.arange(64)]*8
        tiny_processor(list(corpus(probe))+list(extra_corpus(np.random.default_rng(2))), vocab_size=760).save_pretrained('out/processor')
    proc = load_processor('out/processor')
    f = Path('data/bank.pt')
    if not f.exists(): torch.save(CompactBank(proc, d['x'].float()/255), f)
    bank = torch.load(f, weights_only=False)
    return d, vae, proc, bank

def tests(vae):
    from world2 import painted2
    f = Path('data/test.pt')
    if not f.exists():
        new, wide = painted2(512, 1000), mt.painted(512, 2)
        torch.save(dict(new=new, wide=wide), f)
    t = torch.load(f, weights_only=True)
    res = {}
    for name, d in t.items():
        x = mt.pixels(d); r = mt.round_trip(vae, x)
        res[name] = x, d['va'], d
        res[name+'_vae'] = r, d['va'], d
    return res

def judge_errors(model, proc, sets, direct=True, n=256):
    res = {}
    for name, (x, va, d) in sets.items():
        g = gap(LVLMJudge(model, proc, direct=direct, max_new_tokens=90).judge(x[:n]), [Affect.clamp(*p) for p in va[:n].tolist()]).abs()
        res[name] = [round(q, 3) for q in g.nanmean(0).tolist()]+[round(1-g[:, 0].isnan().float().mean().item(), 4)]
    return res

def vision(o):
    d, vae, proc, bank = setup()
    sets = tests(vae)
    model, heads, n = qwen(proc.tokenizer), Heads(), len(bank)
    wrap = nn.ModuleDict(dict(v=model.model.visual, h=heads))
    print('params', sum(p.numel() for p in model.parameters())/1e6, 'vision', sum(p.numel() for p in model.model.visual.parameters())/1e6, 'vocab', len(proc.tokenizer), flush=True)
    stats = colour_stats(torch.cat([b.float()/255 for b in d['x'].split(5000)])) if False else torch.cat([colour_stats(b.float()/255) for b in d['x'].split(5000)])
    attrs, content, va = d['attrs'], d['content'], d['va']
    opts = optimizers(wrap, o['lr'], o['mlr'])
    rates = [[g['lr'] for g in q.param_groups] for q in opts]
    state = Path('state/vision.pt'); step, used, L = 0, 0., []
    if state.exists():
        s = torch.load(state, weights_only=True)
        step, used = s['step'], s['used']
        wrap.load_state_dict(s['wrap'])
        for q, w in zip(opts, s['opts']): q.load_state_dict(w)
    banks = {k: CompactBank(proc, x) for k, (x, _, _) in sets.items()}
    @torch.no_grad()
    def look():
        wrap.eval(); r = {}
        for k, b in banks.items():
            y = torch.cat([heads(see(model, b.values(list(range(j, j+64))), b.grid[j:j+64])) for j in range(0, 512, 64)])
            t = sets[k][2]
            r[k] = [round(q, 3) for q in (y[:, 21:23]-t['va']).abs().mean(0).tolist()]+[round((y[:, :13]-t['attrs']).abs().mean().item(), 3), round((y[:, 13:21].argmax(1)==t['content']).float().mean().item(), 3)]
        wrap.train(); return r
    control = Path('state/vision.json'); steps = o['steps']; last = time.time(); c = {}
    wrap.train()
    while True:
        if step%50==0 and control.exists(): steps = json.loads(control.read_text())['steps']
        if step>=steps: break
        t0 = time.process_time()
        for q, full in zip(opts, rates):
            for g, r in zip(q.param_groups, full): g['lr'] = r*wsd(step, step/steps, 50, o['decay'])
        rng = np.random.default_rng((1, step)); i = torch.from_numpy(rng.integers(0, n, o['batch']))
        y = heads(see(model, bank.values(i), bank.grid[i]))
        loss = 4*F.smooth_l1_loss(y[:, :13], attrs[i], beta=.2)+.5*F.cross_entropy(y[:, 13:21], content[i])+F.smooth_l1_loss(y[:, 21:23], va[i], beta=.3)+F.smooth_l1_loss(y[:, 23:], stats[i], beta=.2)
        wrap.zero_grad(set_to_none=True); loss.backward()
        nn.utils.clip_grad_norm_(wrap.parameters(), 1.)
        for q in opts: q.step()
        step += 1; used += time.process_time()-t0; L.append(loss.item())
        if step%1000==0 or step==100: print('vision', step, round(used), round(float(np.mean(L[-500:])), 4), look(), flush=True)
        if time.time()-last>120:
            torch.save(dict(step=step, used=used, wrap=wrap.state_dict(), opts=[q.state_dict() for q in opts]), 'state/vision.new'); os.replace('state/vision.new', state); last = time.time()
    print('vision end', step, round(used), look(), flush=True)
    torch.save(dict(m=model.state_dict(), h=heads.state_dict()), 'state/eyes.pt')

def language(o, name, start, out, frozen, **ex):
    d, vae, proc, bank = setup()
    sets = tests(vae)
    model = qwen(proc.tokenizer)
    if start=='eyes': model.load_state_dict(torch.load('state/eyes.pt', weights_only=True)['m'])
    else: model = load_model(start)
    model.model.visual.requires_grad_(not frozen)
    e = Examples2(proc, bank, d['content'].numpy(), d['attrs'].numpy(), d['va'].numpy(), **ex)
    t0 = time.process_time()
    def ev(m):
        r = judge_errors(m, proc, {k: sets[k] for k in (('new', 'wide', 'new_vae', 'wide_vae') if o.get('all') else ('new', 'wide_vae'))}, direct=o.get('direct', True), n=o.get('n', 256))
        print(name, round(time.process_time()-t0), r, flush=True)
        return {f'{k}_{a}': v for k, q in r.items() for a, v in zip('var', q)}
    how = {k: o[k] for k in ('lr', 'muon_lr', 'warmup', 'decay') if k in o}
    log = sft(model, proc, e, out, o['steps'], batch_size=24, seed=o.get('seed', 0), evaluate=ev, every=o['every'], save_every=200, clock=itertools.count().__next__, progress=False, **how)
    print(name, 'end CPU', round(time.process_time()-t0), json.dumps(log[-1]), flush=True)

if __name__=='__main__':
    stage = sys.argv[1]; o = json.loads(sys.argv[2]) if len(sys.argv)>2 else {}
    if stage=='vision': vision(dict(lr=3e-3, mlr=5e-3, batch=48, steps=16000, decay=.4)|o)
    if stage=='frozen': language(dict(steps=3000, every=500)|o, 'frozen', 'eyes', 'state/frozen', True)
    if stage=='both' and Path('state/both.json').exists(): o |= json.loads(Path('state/both.json').read_text())
    if stage=='both': language(dict(steps=2000, every=500, lr=1e-3, muon_lr=1.5e-3, warmup=30, decay=.8, seed=1, all=True)|o, 'both', 'state/frozen', 'out/judge', False)
    if stage=='cold': language(dict(steps=2000, every=500, direct=False)|o, 'cold', 'eyes', 'out/judge_cold', True, shrink=.6, noise=.35, kinds=(.7, .3, 0.))
