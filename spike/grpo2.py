"""Judge GRPO by TRL from the uncalibrated judge. usage: grpo2.py SEED [json]"""
import sys, json, time, shutil, warnings
import numpy as np, torch
torch.set_num_threads(1); warnings.filterwarnings('ignore')
from pathlib import Path
from judge2 import tests, judge_errors
from emofeedback.mini.models import bundled
from emofeedback.processor import load_processor
from emofeedback.understanding.judge import LVLMJudge, load_model
from emofeedback.understanding.grpo import GRPOSettings, grpo, rows_for_grpo
from emofeedback.affect import nearest_emotion
from emofeedback.core import Affect, gap
from world2 import painted2
from diffusers import AutoencoderKL
seed = int(sys.argv[1]); o = json.loads(sys.argv[2]) if len(sys.argv)>2 else {}
start = o.pop('start', 'out/judge_cold'); tag = o.pop('tag', 'grpo'); n = o.pop('n', 800)
vae = AutoencoderKL.from_pretrained(bundled('generator'), subfolder='vae').eval()
sets = {k: v for k, v in tests(vae).items() if k in ('new', 'wide')}
d = painted2(n, 500+seed)
labels = [Affect.clamp(*p) for p in d['va'].tolist()]
rows = rows_for_grpo(d['x'].float()/255, labels, [nearest_emotion(p) for p in labels])
model, proc = load_model(start), load_processor(start)
t0 = time.process_time(); spent = [0.]
def look(m):
    t = time.process_time()
    r = judge_errors(m, proc, sets, direct=False, n=192)
    spent[0] += time.process_time()-t
    print(seed, 'CPU', round(time.process_time()-t0-spent[0]), r, flush=True)
    return {f'{k}_{a}': v for k, q in r.items() for a, v in zip(('v', 'a', 'readable'), q)}|dict(cpu=round(time.process_time()-t0-spent[0], 1))
out = Path(f'state/{tag}{seed}')
log = grpo(model, proc, rows, out, GRPOSettings(**(dict(steps=80, lr=1e-3, lora_rank=16, seed=seed, save_every=20)|o)), evaluate=look, every=20, progress=False)
keep = [{k: v for k, v in h.items() if isinstance(v, (int, float))} for h in log]
Path('out').mkdir(exist_ok=True); Path(f'out/{tag}_seed{seed}.json').write_text(json.dumps(keep))
model.save_pretrained(f'out/judge_{tag}{seed}'); proc.save_pretrained(f'out/judge_{tag}{seed}')
