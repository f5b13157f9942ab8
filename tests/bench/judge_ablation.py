'''GRPO of the uncalibrated judge by both tasks, one of them, or other shapes of the reward, read on unseen scenes

python tests/bench/judge_ablation.py OUT [--names both,regression,classification] [--seeds 0,1,2] [--updates 100]
    [--judge FOLDER]

One thread; a run that was interrupted goes on. `both`,
`regression` and `classification` are `emofeedback train-judge [--only TASK] --seed SEED`, and a folder OUT/NAME-SEED
made by that command is read as it is. Each run adds OUT/NAME-SEED.jsonl with a line per picture.
With `_drawn` behind a name (`--names both_drawn,regression_drawn`) valence and arousal of the same pictures are drawn
from the cloud of their emotion, as the paper labels EmoSet; with `_people` labels are the mean of five invented raters.
`--judge` starts from another judge, say the small one of `emofeedback train-mini --only judge_small`.
'''
import argparse
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from emofeedback.data.labels import Row, fit_gaussians, label_rows
from emofeedback.images import to_pil
from emofeedback.mini.models import bundled
from emofeedback.mini.rows import labelled_scenes
from emofeedback.people.agreement import affect_table, consensus, human_rows, simulate_raters
from emofeedback.recipes import JudgeRecipe, mini_judge, single_task
from emofeedback.runs import write_jsonl
from emofeedback.system import quiet
from emofeedback.train import train_judge
from emofeedback.understanding.judge import LVLMJudge
from emofeedback.understanding.rewards import levels_like

def shaped(levels) -> JudgeRecipe:
    'The recipe with another reward of valence and arousal'
    made = mini_judge()
    return replace(made, settings=replace(made.settings, levels=levels))

RECIPES = dict(both=mini_judge(), regression=single_task(mini_judge(), 'regression'),
               classification=single_task(mini_judge(), 'classification'),
               step=shaped(None), linear=shaped(levels_like('linear')), gaussian=shaped(levels_like('gaussian')),
               rank=shaped('rank'))

def by_lexicon(rows, seed) -> list[Row]:
    'Valence and arousal drawn from the cloud of the emotion'
    return label_rows(rows, fit_gaussians(rows), seed)

def by_raters(rows, seed) -> list[Row]:
    'The mean of five invented raters, whose habits differ, and the word that most of them chose'
    habits = np.random.default_rng(seed).normal(0, .3, (5, 2)) # of the whole scale, for each rater and axis
    return human_rows(rows, consensus(simulate_raters(affect_table(rows), 5, habits, noise=.6, seed=seed)))

LABELS = dict(drawn=by_lexicon, people=by_raters)

def labelled(folder:Path, how:str, n=500, seed=0) -> Path:
    'The pictures that a run sees, with other labels: a folder for `train_judge`'
    x, affects, emotions = labelled_scenes(n, seed=seed)
    names = [f'{i:03}.png' for i in range(n)]
    rows = [Row(p, e, a, name=k) for p,e,a,k in zip(to_pil(x), emotions, affects, names)]
    folder.mkdir(parents=True, exist_ok=True)
    for r in rows: r.image.save(folder/r.name)
    lines = [[r.name, *r.affect, r.emotion] for r in LABELS[how](rows, seed)]
    with (folder/'labels.csv').open('w', newline='') as f:
        csv.writer(f).writerows([['image', 'valence', 'arousal', 'emotion'], *lines])
    return folder

def readings(folder, n=300, seed=2000) -> list[dict]:
    'What a judge says, with reasons, of painted scenes that no run was trained on'
    x, affects, emotions = labelled_scenes(n, seed=seed)
    with quiet(): found = LVLMJudge.from_pretrained(folder, False, device='cpu').judge(x)
    def line(p, e, j):
        v, a = j.affect or (None, None)
        return dict(v=p.v, a=p.a, emotion=e, v_read=v, a_read=a, emotion_read=j.emotion)
    return [line(*o) for o in zip(affects, emotions, found)]

def run(name, seed, updates, out, judge) -> None:
    file = out/f'{name}-{seed}.jsonl'
    if file.exists(): return
    task, _, how = name.partition('_')
    recipe = RECIPES[task]
    recipe = replace(recipe, settings=replace(recipe.settings, steps=updates, seed=seed))
    rows = labelled(out/f'labels-{how}-{seed}', how, seed=seed) if how else None
    found = readings(train_judge(out/f'{name}-{seed}', rows, recipe, judge))
    write_jsonl(file, [dict(name=name, seed=seed) | o for o in found])

def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument('out', type=Path)
    a.add_argument('--names', default='both,regression,classification')
    a.add_argument('--seeds', default='0,1,2')
    a.add_argument('--updates', type=int, default=100)
    a.add_argument('--judge', type=Path, default=bundled('judge_cold'))
    args = a.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    start = args.out/'untrained-0.jsonl'
    if not start.exists():
        write_jsonl(start, [dict(name='untrained', seed=0) | o for o in readings(args.judge)])
    for seed in map(int, args.seeds.split(',')):
        for name in args.names.split(','): run(name, seed, args.updates, args.out, args.judge)

if __name__=='__main__': main()
