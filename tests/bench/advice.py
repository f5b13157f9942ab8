'''Textual feedback on the mini world by several advisers, read by the oracle on requests never trained on

python tests/bench/advice.py OUT [--ways lvlm,rule,chance] [--seeds 0,1,2] [--systems base,rf] [--rounds 3x8]
    [--requests 120] [--adviser FOLDER] [--models FOLDER]

A row per adviser, generator, seed and number of rounds in OUT/advice.jsonl; rows that are there are not made again.
Best of as many pictures stands beside each, from the same noises. `--rounds 1x24,2x12,3x8,4x6,6x4` is the sweep.
'''
import argparse
from pathlib import Path

import numpy as np
import torch

from emofeedback.core import gap
from emofeedback.evaluation.metrics import paired
from emofeedback.feedback.advisers import Advised, chance_adviser, rule_adviser
from emofeedback.feedback.consequences import Consequences, advice_quality, drawn_situations
from emofeedback.feedback.loop import best_of_n, draw, textual_feedback
from emofeedback.make.adviser import mini_effects
from emofeedback.mini.advice import about
from emofeedback.mini.captions import MODIFIERS, content_of
from emofeedback.pipeline import EmoFeedback, mini_oracle
from emofeedback.runs import read_jsonl, write_jsonl
from emofeedback.studies.mini import held_out_requests
from emofeedback.system import quiet
from emofeedback.understanding.judge import LVLMJudge

class Bench:
    'Models, requests, and what was measured so far'
    def __init__(self, args, system, seed):
        self.args, self.system, self.seed = args, system, seed
        self.emo = EmoFeedback.mini(base=system=='base', models=args.models)
        self.oracle, self.judge = mini_oracle(args.models), self.emo.judge
        self.asked = held_out_requests(args.requests, 200+seed)
        self.how, self.effects, self.luck = dict(steps=8, seed=500+seed), None, {}

    def adviser(self, way):
        if way=='chance': return chance_adviser(self.judge, MODIFIERS, self.seed)
        if way=='lvlm':
            if self.args.adviser is None: return self.emo.adviser
            return Advised(self.judge, LVLMJudge.from_pretrained(self.args.adviser).suggest)
        if self.effects is None:
            self.effects = mini_effects(self.emo.gen, self.judge)
        return rule_adviser(self.judge, self.effects, about)

    def read(self, x, prompts): # error of each picture, share that shows its content
        right = [c==content_of(p.content) for c,p in zip(self.oracle.content(x), prompts)]
        return gap(self.oracle.judge(x), [p.target for p in prompts]).abs().mean(1), float(np.mean(right))

    def picked(self, found):
        return self.read(torch.stack([f.rounds[r].images[i] for f in found for r,i in [f.choice]]), self.asked)

    def best_of(self, n):
        if n not in self.luck:
            self.luck[n] = self.picked(best_of_n(self.emo.gen, self.judge, self.asked, n, **self.how))
        return self.luck[n]

    def fresh(self, texts, skip, n=4):
        x = draw(self.emo.gen, texts, n, skip=skip, **self.how).flatten(0, 1)
        error, content = self.read(x, [p for p in self.asked for _ in range(n)])
        return error.view(-1, n).mean(1), content

    def quality(self, adviser): # share of suggestions that lower the oracle's error
        how = dict(guard=self.emo.guard, take=self.emo.take)
        turns = drawn_situations(self.emo.gen, adviser, self.asked[:60], seed=self.seed, **how)
        own, dealt = advice_quality(Consequences(self.emo.gen, self.oracle, draws=4, **how), adviser, turns, self.seed)
        return dict(nearer=own, dealt=dealt)

    def row(self, way, rounds, images):
        adviser, n = self.adviser(way), rounds*images
        how = dict(guard=self.emo.guard, take=self.emo.take, progress=False, **self.how)
        found = textual_feedback(self.emo.gen, adviser, self.asked, rounds, images, **how)
        (mine, content), (luck, luck_content) = self.picked(found), self.best_of(n)
        first, _ = self.fresh([p.text for p in self.asked], n)
        final, fresh_content = self.fresh([f.text for f in found], n)
        row = dict(way=way, system=self.system, seed=self.seed, rounds=rounds, images=images, requests=len(self.asked),
                   tf=paired(mine, luck).to_dict(), fresh=paired(final, first).to_dict(), content=content,
                   best_content=luck_content, fresh_content=fresh_content, refused=sum(len(f.refused) for f in found))
        return row|(self.quality(adviser) if (rounds, images)==(3, 8) else {})

def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument('out', type=Path)
    a.add_argument('--ways', default='lvlm,rule,chance')
    a.add_argument('--seeds', default='0,1,2')
    a.add_argument('--systems', default='base,rf')
    a.add_argument('--rounds', default='3x8')
    a.add_argument('--requests', type=int, default=120)
    a.add_argument('--adviser', type=Path)
    a.add_argument('--models', type=Path)
    args = a.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out/'advice.jsonl'
    rows = read_jsonl(file)
    for seed in map(int, args.seeds.split(',')):
        for system in args.systems.split(','):
            bench = None
            for way in args.ways.split(','):
                for rounds,images in (map(int, o.split('x')) for o in args.rounds.split(',')):
                    key = dict(way=way, system=system, seed=seed, rounds=rounds, images=images)
                    if any(key.items()<=r.items() for r in rows): continue
                    with quiet():
                        bench = bench or Bench(args, system, seed)
                        rows.append(bench.row(way, rounds, images))
                    write_jsonl(file, rows)
                    print(rows[-1], flush=True)

if __name__=='__main__': main()
