import sys, time, torch, warnings
torch.set_num_threads(1); warnings.filterwarnings('ignore')
sys.path.insert(0, 'port')
from expectation import *
from emofeedback.understanding.judge import LVLMJudge
from emofeedback.core import gap
from judge2 import tests
from emofeedback.mini.models import bundled
from diffusers import AutoencoderKL
path = sys.argv[1]; n = int(sys.argv[2])
vae = AutoencoderKL.from_pretrained(bundled('generator'), subfolder='vae').eval()
sets = tests(vae); J = LVLMJudge.from_pretrained(path); C = LVLMJudge.from_pretrained(path, direct=False, max_new_tokens=90)
for k in (sys.argv[3].split(',') if len(sys.argv)>3 else ('new', 'new_vae', 'wide', 'wide_vae')):
    x, va, _ = sets[k]; x, va = x[:n], va[:n]; t = [Affect.clamp(*p) for p in va.tolist()]
    r = {}
    for name, f in (('greedy', lambda: J.judge(x)), ('reasons', lambda: C.judge(x)), ('expected', lambda: expected(J, x))):
        s = time.process_time(); y = f(); d = time.process_time()-s
        if name=='expected': e = y; y = y.judgements()
        g = gap(y, t); r[name] = [round(q, 3) for q in g.abs().nanmean(0).tolist()]+[round(n/d), 'pictures/s']
    sd, err = e.spread, (e.mean-va).abs()
    print(k, r, 'mean spread', [round(q, 3) for q in sd.mean(0).tolist()], 'corr spread-error', [round(torch.corrcoef(torch.stack([sd[:, i], err[:, i]]))[0, 1].item(), 2) for i in (0, 1)], 'mass', round(e.readable.min().item(), 4), 'certain half err', [round(err[sd[:, i]<=sd[:, i].median(), i].mean().item(), 3) for i in (0, 1)], flush=True)
