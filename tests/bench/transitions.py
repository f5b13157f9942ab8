'''Transitions on the mini world: paths across the plane, one starting noise per path, read by the oracle

python tests/bench/transitions.py OUT [--seeds 0,1,2] [--systems words,numbers,textual,matching,both,fine,fine_matching]
    [--trained FOLDER] [--scenes 4] [--points 9]

A row per picture in OUT/transitions.parquet; a system and seed that is there is not drawn again. Generators after
reward feedback are FOLDER/matching-SEED/lora (`emofeedback train-generator --recipe mini_rf --seed SEED`); without
FOLDER the bundled one stands for every seed.
'''
import argparse
from io import BytesIO
from pathlib import Path

import pandas as pd
import torch

from emofeedback.affect import path
from emofeedback.core import Affect, Prompt
from emofeedback.data.prompts import with_mood
from emofeedback.evaluation.evaluate import score_images
from emofeedback.feedback.loop import case_noise, draw_from, textual_feedback
from emofeedback.mini.captions import HELD_OUT, content_of
from emofeedback.pipeline import EmoFeedback, mini_oracle
from emofeedback.runs import write_whole
from emofeedback.system import quiet

AXES = dict(valence=((-2, 0), (2, 0)), arousal=((0, -2), (0, 2)))
PATHS = AXES | dict(rising=((-2, -2), (2, 2)), falling=((-2, 2), (2, -2))) # the diagonals
SYSTEMS = 'words', 'numbers', 'textual', 'matching', 'both', 'fine', 'fine_matching'
AFTER = 'matching', 'both', 'fine_matching' # reward feedback

class Bench:
    'Generators, and the paths that they walk'
    def __init__(self, args, seed):
        self.args, self.seed, self.oracle = args, seed, mini_oracle()
        self.base = EmoFeedback.mini(base=True)
        self.tuned = EmoFeedback.mini(lora=args.trained and args.trained/f'matching-{seed}'/'lora')

    def asked(self, paths, points, emo): # scene by scene, path by path, point by point
        scenes = HELD_OUT[::len(HELD_OUT)//self.args.scenes][:self.args.scenes]
        ways = [(s, name, path(Affect(*p), Affect(*q), points)) for s in scenes for name,(p,q) in paths.items()]
        prompts = [Prompt(s, t, emo.write(s, t)) for s,_,way in ways for t in way]
        return prompts, [name for _,name,way in ways for _ in way]

    def rewritten(self, emo, prompts): # the prompts that textual feedback ends with
        how = dict(steps=emo.steps, guard=emo.guard, take=emo.take, seed=700+self.seed, progress=False)
        return [f.text for f in textual_feedback(emo.gen, emo.adviser, prompts, **how)]

    def rows(self, system):
        fine, emo = system.startswith('fine'), self.tuned if system in AFTER else self.base
        points = 41 if fine else self.args.points
        prompts, names = self.asked(AXES if fine else PATHS, points, emo)
        texts = [p.text for p in prompts]
        if system=='words': texts = [with_mood(p.content, p.target) for p in prompts]
        if system in ('textual', 'both'): texts = self.rewritten(emo, prompts)
        noise = [case_noise(emo.gen, k, 1, 900+self.seed) for k in range(len(prompts)//points) for _ in range(points)]
        x = draw_from(emo.gen, texts, torch.cat(noise), emo.steps)
        prompts = [p.with_text(t) for p,t in zip(prompts, texts)]
        t = score_images(x, prompts, self.oracle, content_of=content_of)
        apart = (x[1:]-x[:-1]).square().mean((1, 2, 3)).sqrt() # of neighbours, root mean square over pixels and colours
        t['pixels'] = [float('nan')]+apart.tolist()
        t['step'] = [k%points for k in range(len(t))]
        t.loc[t.step==0, 'pixels'] = float('nan') # the first of a path has no neighbour before it
        return t.drop(columns=['case', 'clip', 'content_read']).assign(path=names, system=system, seed=self.seed)

def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument('out', type=Path)
    a.add_argument('--seeds', default='0,1,2')
    a.add_argument('--systems', default=','.join(SYSTEMS))
    a.add_argument('--trained', type=Path)
    a.add_argument('--scenes', type=int, default=4)
    a.add_argument('--points', type=int, default=9)
    args = a.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out/'transitions.parquet'
    rows = pd.read_parquet(file) if file.is_file() else pd.DataFrame(dict(system=[], seed=[]))
    for seed in map(int, args.seeds.split(',')):
        bench = None
        for system in args.systems.split(','):
            if ((rows.system==system) & (rows.seed==seed)).any(): continue
            with quiet():
                bench = bench or Bench(args, seed)
                rows = pd.concat([*([rows] if len(rows) else []), bench.rows(system)], ignore_index=True)
            rows.to_parquet(buffer := BytesIO(), index=False)
            write_whole(file, buffer.getvalue())
            print(seed, system, len(rows), flush=True)

if __name__=='__main__': main()
