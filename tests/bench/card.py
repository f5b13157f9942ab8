'''What a model card says of the checkpoints of the mini world: each figure a row, read by the bundled oracle

python tests/bench/card.py OUT [--models FOLDER] [--renders 600] [--requests 160] [--advised 60] [--pictures 24]

One thread. The rows go to OUT/NAME.jsonl, where NAME is the folder of the models, or `bundled`; those under
nbs/recorded/card were made so.
'''
import argparse
from pathlib import Path

import torch
from objectives import measure

from emofeedback.core import gap
from emofeedback.evaluation.evaluate import score_images, summary
from emofeedback.feedback.loop import best_of_n, textual_feedback
from emofeedback.make.report import base_report
from emofeedback.mini.captions import content_of
from emofeedback.mini.rows import labelled_scenes
from emofeedback.pipeline import EmoFeedback, mini_oracle, mini_path
from emofeedback.runs import write_jsonl
from emofeedback.studies.mini import held_out_requests
from emofeedback.system import quiet
from emofeedback.understanding.expectation import ExpectedJudge
from emofeedback.understanding.judge import LVLMJudge

def judges(models, n) -> dict:
    'Mean absolute errors on unseen renders, by expectation and with reasons'
    images, truth, _ = labelled_scenes(n, seed=2001)
    found = {}
    for name in ('judge', 'judge_small', 'judge_cold'):
        path, how = mini_path(name, models), dict(device='cpu', full=False)
        if not path.is_dir(): continue # its stage is not done yet
        ways = dict(expectation=ExpectedJudge.from_pretrained(path, **how),
                    reasons=LVLMJudge.from_pretrained(path, False, **how))
        for way,judge in ways.items():
            v, a = gap(judge.judge(images), truth).abs().nanmean(0).tolist()
            found[f'{name}, {way}'] = dict(v_error=v, a_error=a)
    return found

def advised(emo, oracle, asked) -> dict:
    'Three rounds of eight pictures, and the best of 24'
    how = dict(steps=8, seed=777)
    ways = dict(textual=textual_feedback(emo.gen, emo.adviser, asked, 3, 8, guard=emo.guard, take=emo.take,
                                         progress=False, **how),
                best=best_of_n(emo.gen, emo.judge, asked, 24, **how))
    def scored(found):
        x = torch.stack([f.rounds[r].images[i] for f in found for r,i in [f.choice]])
        s = summary(score_images(x, asked, oracle, emo.clip, content_of))
        return {k: s[k] for k in ('v_error', 'a_error', 'content')}
    return {k: scored(o) for k,o in ways.items()}

def flat(found:dict, names=()) -> dict: # name -> number
    'Nested figures as one table'
    rows = {}
    for k,x in found.items():
        if isinstance(x, dict): rows |= flat(x, (*names, k))
        elif isinstance(x, list): rows |= flat(dict(zip(('v', 'a'), x)), (*names, k))
        else: rows[': '.join((*names, k))] = float(x)
    return rows

def card(models, args) -> dict:
    'All figures'
    asked, oracle, found = held_out_requests(args.requests, 100), mini_oracle(), {}
    with quiet():
        found |= judges(models, args.renders)
        for name,base in dict(base=True, trained=False).items():
            emo = EmoFeedback.mini(base=base, models=models)
            found[name] = measure(emo.gen, oracle, asked)
            for way,row in advised(emo, oracle, asked[:args.advised]).items(): found[f'{name}, {way}'] = row
            if base: found['report'] = base_report(emo.gen, oracle, args.pictures)
    return flat(found)

def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument('out', type=Path)
    a.add_argument('--models', type=Path)
    for name,n in dict(renders=600, requests=160, advised=60, pictures=24).items():
        a.add_argument(f'--{name}', type=int, default=n)
    args = a.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    name = args.models.name if args.models else 'bundled'
    rows = [dict(models=name, figure=k, value=x) for k,x in card(args.models, args).items()]
    write_jsonl(args.out/f'{name}.jsonl', rows)
    for row in rows: print(f'{row["figure"]:40} {row["value"]:8.3f}')

if __name__=='__main__': main()
