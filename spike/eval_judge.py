import sys, time, json, warnings, torch; sys.path.insert(0, 'port'); torch.set_num_threads(1); warnings.filterwarnings('ignore')
from expectation import *
from equal_pictures import batch_pictures
from judge2 import tests
from eval_base import generator
from emofeedback.core import gap
from emofeedback.pipeline import mini_oracle
from emofeedback.demo.study import DemoConfig, requests
from emofeedback.understanding.judge import LVLMJudge, load_model
from emofeedback.processor import load_processor
from emofeedback.mini.models import bundled
from diffusers import AutoencoderKL
path, n = sys.argv[1], int(sys.argv[2])
batch_pictures()
vae = AutoencoderKL.from_pretrained(bundled('generator'), subfolder='vae').eval()
sets = tests(vae); proc = load_processor(path); res = {}
def err(J, x, va): 
    g = gap(J, [Affect.clamp(*p) for p in va.tolist()]).abs(); return [round(q, 3) for q in g.nanmean(0).tolist()]+[round(1-g[:, 0].isnan().float().mean().item(), 4)]
m = load_model(path)
def timed(f, x): t = time.process_time(); y = f(x); return y, round(len(x)/(time.process_time()-t))
J, C = LVLMJudge(m, proc), LVLMJudge(m, proc, direct=False, max_new_tokens=90); E = ExpectingJudge(J)
for k, (x, va, _) in sets.items():
    x, va = x[:n], va[:n]; r = {}
    for name, j in (('greedy', J), ('expected', E)) + ((('reasons', C),) if k in ('new', 'wide_vae') else ()):
        y, s = timed(j.judge, x); r[name] = err(y, x, va)+[f'{s}/s']
    e = expected(J, x); d = (e.mean-va).abs()
    r['spread'] = [round(q, 3) for q in e.spread.mean(0).tolist()]; r['corr'] = [round(torch.corrcoef(torch.stack([e.spread[:, i], d[:, i]]))[0, 1].item(), 2) for i in (0, 1)]
    r['surer half'] = [round(d[e.spread[:, i]<=e.spread[:, i].median(), i].mean().item(), 3) for i in (0, 1)]; r['mass'] = [round(e.readable.mean().item(), 3), round(e.readable.min().item(), 3)]
    res[k] = r; print(k, r, flush=True)
o = mini_oracle(); g = generator('out/generator'); w = requests(DemoConfig(seed=11))
x = g.sample([p.text for p in w], 8, generator=torch.Generator().manual_seed(777)); t = o.read(x)[2]
res['generated'] = {k: err(j.judge(x), x, t) for k, j in (('greedy', J), ('expected', E))}; print('generated, against the oracle', res['generated'], flush=True)
b = load_model(path, dtype=torch.bfloat16).float(); B = LVLMJudge(b, proc)
res['bf16'] = {k: dict(greedy=err(B.judge(sets[k][0][:n]), None, sets[k][1][:n]), expected=err(ExpectingJudge(B).judge(sets[k][0][:n]), None, sets[k][1][:n])) for k in ('new', 'wide_vae')}; print('bf16', res['bf16'])
json.dump(res, open(f'out/eval_{path.strip("/").split("/")[-1]}.json', 'w'), indent=1)
if len(sys.argv)>3:
    load_model(path, dtype=torch.bfloat16).save_pretrained(path+'_bf16'); proc.save_pretrained(path+'_bf16')
