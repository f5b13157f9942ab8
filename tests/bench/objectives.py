'''Reward feedback on the mini world by several objectives, read by the oracle on requests never trained on

python tests/bench/objectives.py OUT [--names matching,one_step] [--seeds 0,1,2] [--updates 120]
    [--models FOLDER] [--judge FOLDER]

One thread, some seven minutes of processor time for 120 updates; a run that was interrupted goes on. The rows go to
OUT/NAME-SEED.jsonl; those under nbs/recorded/objectives were made so, those under objectives_first on the first
edition of base and judge.
`--judge` gives the rewards by another judge.
'''
import argparse
from dataclasses import replace
from pathlib import Path

import torch

from emofeedback.core import gap
from emofeedback.feedback.loop import draw
from emofeedback.generation.objectives import GRPO, NFT
from emofeedback.generation.prompts import scene_sampler
from emofeedback.generation.state import RFConfig
from emofeedback.mini.captions import content_of
from emofeedback.pipeline import EmoFeedback, mini_oracle
from emofeedback.recipes import GeneratorRecipe, mini_flow_grpo, mini_rf
from emofeedback.runs import read_jsonl, write_jsonl
from emofeedback.studies.mini import held_out_requests
from emofeedback.system import quiet
from emofeedback.train import scenes_left, train_generator

def contrast() -> GeneratorRecipe:
    'The default recipe with the objective of DiffusionNFT'
    made = mini_rf()
    return replace(made, config=replace(made.config, objective=NFT(beta=.03)))

def varied(changes:dict=None, **config) -> GeneratorRecipe:
    'The recipe of Flow-GRPO with another objective'
    made = mini_flow_grpo().config
    return GeneratorRecipe(replace(made, objective=replace(made.objective, **(changes or {})), **config))

RECIPES = dict(
    matching=mini_rf(),
    nft=contrast(),
    one_step=mini_flow_grpo(), # one start per group, one exact stochastic step of the first two, all weighed alike
    first_step=varied(dict(window_end=1)),
    first_four=varied(dict(window_end=4)), # one_step of the first edition, there without weights
    two_steps=varied(dict(window=2)),
    groups_of_24=varied(prompts=4, group_size=24),
    four_parts=varied(dict(window_end=4, parts=4, clip_range=.01)), # optimiser steps per rollout
    again_free=varied(dict(inner=4, clip_range=1.)), # four optimiser steps on the same pictures, without a limit
    again_clip=varied(dict(inner=4)),
    again_guard=varied(dict(inner=4, trust='guard', clip_range=2e-6)),
    again_kl=varied(dict(inner=4, trust='kl', clip_range=1e-5)),
    flow_fast=varied(dict(window=2, window_end=4, kind='cps', noise_level=.8, same_noise=False, weigh_steps=False,
                          parts=2)), # as the public code's fast variant
    two_sde_steps=GRPO(noise_level=1.4, beta=.004), # of Flow-GRPO's kind, every picture from a start of its own
    two_exact_steps=GRPO(noise_level=1., kind='exact', same_noise=True, beta=.004),
    paper=GRPO(window=7, window_end=7, beta=.01)) # all steps that can be stochastic

def recipe_of(name, seed) -> GeneratorRecipe:
    found = RECIPES[name]
    if isinstance(found, GRPO): found = GeneratorRecipe(RFConfig(objective=found))
    return replace(found, config=replace(found.config, seed=seed))

def measure(gen, oracle, asked) -> dict:
    'Mean absolute errors and content of one picture per request'
    x = draw(gen, [p.text for p in asked], 1, seed=777)[:, 0]
    v, a = gap(oracle.judge(x), [p.target for p in asked]).abs().nanmean(0).tolist()
    right = [c==content_of(p.content) for c,p in zip(oracle.content(x), asked)]
    return dict(v_error=v, a_error=a, content=sum(right)/len(right))

def run(name, seed, updates, out, models, judge, every=20) -> None:
    recipe, asked, file = recipe_of(name, seed), held_out_requests(160, 100+seed), out/f'{name}-{seed}.jsonl'
    rows = read_jsonl(file)
    with quiet():
        emo, oracle = EmoFeedback.mini(base=True, models=models, judge=judge), mini_oracle(models)
        def look(gen, row):
            if row['update']%every or row['update']<=max([o['update'] for o in rows], default=-1): return
            at = dict(name=name, seed=seed, update=row['update'], pictures=row['pictures'])
            rows.append(at | measure(gen, oracle, asked))
            write_jsonl(file, rows)
        look(emo.gen, dict(update=0, pictures=0))
        train_generator(emo, recipe, scene_sampler(scenes_left()), out/f'{name}-{seed}', updates, on_update=look)

def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument('out', type=Path)
    a.add_argument('--names', default=','.join(RECIPES))
    a.add_argument('--seeds', default='0,1,2')
    a.add_argument('--updates', type=int, default=120)
    a.add_argument('--models', type=Path)
    a.add_argument('--judge', type=Path)
    args = a.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in map(int, args.seeds.split(',')):
        for name in args.names.split(','): run(name, seed, args.updates, args.out, args.models, args.judge)

if __name__=='__main__': main()
