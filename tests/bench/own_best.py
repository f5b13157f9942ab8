'''An adviser that learns from the best of its own advice, on the mini world

python tests/bench/own_best.py OUT [--seed 0] [--rounds 2] [--prompts 100] [--group 8] [--updates 240] [--rf]

Starts from the bundled judge. In every round it advises on situations of training scenes, eight answers for each; the
generator draws what every answer asks for, the judge reads it (see `feedback.consequences`), and the two answers that
brought the pictures nearest, if nearer at all, become examples of supervised fine-tuning. OUT/log.jsonl has a row per
round, OUT/judge the adviser: `python tests/bench/advice.py OUT2 --ways lvlm --adviser OUT/judge` scores it.
'''
import argparse
from pathlib import Path

import numpy as np
import torch

from emofeedback.feedback.advisers import Advised
from emofeedback.feedback.consequences import Consequences, drawn_situations, rows_for_advice
from emofeedback.feedback.loop import advice_on
from emofeedback.generation.prompts import scene_sampler
from emofeedback.images import to_tensor
from emofeedback.mini.models import bundled
from emofeedback.pipeline import EmoFeedback
from emofeedback.runs import write_jsonl
from emofeedback.system import progress_bar, quiet
from emofeedback.train import scenes_left
from emofeedback.understanding.judge import GumbelSampling, LVLMJudge, answer
from emofeedback.understanding.questions import Suggest
from emofeedback.understanding.sft import Example, PixelBank, sft

class OwnBest:
    'A generator that draws, a judge that reads, and an adviser that learns'
    def __init__(self, args):
        with quiet():
            self.emo = EmoFeedback.mini(base=not args.rf)
            self.adviser = LVLMJudge.from_pretrained(bundled('judge'), False)
        self.args, self.sampler = args, scene_sampler(scenes_left())
        self.how = dict(guard=self.emo.guard, take=self.emo.take, steps=self.emo.steps)
        self.outcome = Consequences(self.emo.gen, self.emo.judge, **self.how)

    def situations(self, n, seed, rounds):
        reader, prompts = Advised(self.emo.judge, self.adviser.suggest), self.sampler(n, np.random.default_rng(seed))
        return drawn_situations(self.emo.gen, reader, prompts, rounds, seed=seed, **self.how)

    def gains(self, advice, turns, seed):
        'By how much nearer each suggestion brings; what cannot be read, drawn or kept costs two units'
        asked = [t.prompt for t in turns], [-t.scores.nanmean().item() for t in turns], [t.images for t in turns]
        return self.outcome(advice, *asked, torch.Generator().manual_seed(seed)).nan_to_num(-2.)

    def best(self, turn, row, seed, top=2):
        'Gains of a group of answers to one situation, and the best of them'
        seeds = [seed*self.args.group+i for i in range(self.args.group)]
        texts = answer(self.adviser.model, self.adviser.processor, [row['prompt']]*len(seeds),
                       [row['images']]*len(seeds), max_new_tokens=160, seeds=seeds)
        gain = self.gains([Suggest().read(o) for o in texts], [turn]*len(seeds), seed)
        good = [i for i in gain.argsort(descending=True)[:top].tolist() if gain[i]>max(0., gain.mean().item())]
        return gain, [(row['prompt'], row['images'], texts[i]) for i in good]

    def round(self, k):
        first = 1000*(2*self.args.seed+k)
        turns = self.situations(self.args.prompts, first, 2)
        rows, gains, found = rows_for_advice(turns), [], []
        with progress_bar(len(turns), f'round {k+1}', 'situations') as bar:
            for i,turn in enumerate(turns):
                gain, good = self.best(turn, rows[i], first*1000+i)
                gains.append(gain)
                found += good
                bar.update()
        bank = PixelBank(self.adviser.processor, torch.cat([to_tensor(pair) for _,pair,_ in found]))
        pool = [Example(q, [bank[2*i], bank[2*i+1]], text) for i,(q,_,text) in enumerate(found)]
        def drawn(rng, n): return [pool[i] for i in rng.integers(len(pool), size=n)]
        sft(self.adviser.model, self.adviser.processor, drawn, updates=self.args.updates, batch_size=24, lr=1.5e-3,
            muon_lr=2.5e-3, warmup=20, decay=.7, seed=self.args.seed)
        gains = torch.stack(gains)
        return dict(situations=len(turns), examples=len(pool), sampled=gains.mean().item(),
                    best=gains.max(1).values.mean().item())

    def held(self, turns):
        gain = self.gains(advice_on(self.adviser, turns), turns, 0)
        return dict(nearer=(gain>0).float().mean().item(), gain=gain.mean().item())

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('out', type=Path)
    p.add_argument('--rf', action='store_true', help='the generator after reward feedback')
    for name,n in dict(seed=0, rounds=2, prompts=100, group=8, updates=240).items():
        p.add_argument(f'--{name}', type=int, default=n)
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    GumbelSampling.__init__.__defaults__ = ('cpu', 1.) # the temperature at which GRPO explores
    it = OwnBest(args)
    turns = it.situations(48, 10**6+args.seed, 1)
    log = [dict(round=0, **it.held(turns))]
    for k in range(args.rounds):
        log.append(dict(round=k+1, **it.round(k), **it.held(turns)))
        write_jsonl(args.out/'log.jsonl', log)
        print(log[-1], flush=True)
    it.adviser.save_pretrained(args.out/'judge')

if __name__=='__main__': main()
