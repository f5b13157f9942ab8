"""Flow-GRPO variants. usage: fg2.py NAME GENERATOR JUDGE UPDATES SEED json"""
import sys, json, time, warnings, tempfile
import numpy as np, torch
torch.set_num_threads(1); warnings.filterwarnings('ignore'); sys.path.insert(0, 'port')
from dataclasses import replace
from pathlib import Path
from eval_base import generator
from flow_grpo import FlowGRPOConfig, flow_grpo_update
from expectation import ExpectingJudge
from emofeedback.generation.train import one_update, RFConfig
from emofeedback.generation.rewards import EmotionReward
from emofeedback.generation.preference import ClipScore
from emofeedback.generation.prompts import scene_sampler
from emofeedback.generation.run import Run
from emofeedback.train import left_over, WEIGHTS
from emofeedback.demo.study import DemoConfig, requests
from emofeedback.feedback.loop import draw
from emofeedback.pipeline import mini_oracle
from emofeedback.understanding.judge import LVLMJudge
from emofeedback.mini.models import bundled
from emofeedback.mini.captions import content_of
from emofeedback.core import gap
name, G, Jp, updates, seed = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]); over = json.loads(sys.argv[6]) if len(sys.argv)>6 else {}
matching = over.pop('matching', False)
cfg = RFConfig(objective='matching', beta=.03, decay=.3, seed=seed, **over) if matching else FlowGRPOConfig(seed=seed, **over)
gen, oracle = generator(G), mini_oracle()
judge = ExpectingJudge(LVLMJudge.from_pretrained(Jp)); clip = ClipScore.from_pretrained(bundled('clip'))
dc = DemoConfig(seed=11); w = requests(dc); sample = scene_sampler(left_over(dc.scenes))
fns = dict(emotion=EmotionReward(judge), preference=clip)
def look():
    x = draw(gen, [p.text for p in w], 1, 777, steps=8)[:, 0]
    d = gap(oracle.judge(x), [p.target for p in w]).abs().mean(0)
    return [round(d[0].item(), 3), round(d[1].item(), 3), round(float(np.mean([a==content_of(p.content) for a, p in zip(oracle.content(x), w)])), 3)]
run = Run(gen, cfg, f'state/fg_{name}_{seed}', {}); used = 0.; hist = [dict(update=0, cpu=0, error=look())]
print(name, seed, hist[-1], flush=True)
for k in range(updates):
    t = time.process_time(); run.set_lr(k/updates)
    row = one_update(run, fns, WEIGHTS, sample) if matching else flow_grpo_update(run, fns, WEIGHTS, sample)
    run.update += 1; used += time.process_time()-t
    if (k+1)%max(1, updates//4)==0:
        with run.averaged(): hist.append(dict(update=k+1, cpu=round(used), error=look()))
        print(name, seed, hist[-1], {a: round(row[a], 3) for a in ('kl', 'grad', 'rollout_s', 'reward_s', 'train_s') if a in row}, flush=True)
Path(f'out/fg_{name}_{seed}.json').write_text(json.dumps(hist))
