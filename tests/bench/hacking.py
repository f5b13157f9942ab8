'''Reward feedback by several sets of rewards, with readers that give no reward beside those that do

python tests/bench/hacking.py OUT [--names emotion,preference,kl,normal] [--seeds 0,1,2] [--updates 60]

One thread; a run that was interrupted goes on. `--names poor` and `poor_alone` first train a judge on 300 pictures, in
OUT/judge; `--names pale,smooth` first teach the bundled judge what is wrong, in OUT/NAME-judge.
OUT/NAME-SEED.jsonl has a line per update: what the judge and the readers saw on the pictures of training, and every
five updates what the oracle sees on requests never trained on. OUT/pictures.png shows requests by the base and by each
run of seed 0.
'''
import argparse
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from objectives import measure

from emofeedback.disk.files import whole_folder
from emofeedback.evaluation.lights import held_out, own_scene
from emofeedback.feedback.loop import draw
from emofeedback.generation.prompts import scene_sampler
from emofeedback.images import image_grid
from emofeedback.make.all import MiniConfig, judge_stages, save_judge
from emofeedback.make.eyes import labelled_views
from emofeedback.make.judge import MiniExamples, learn_to_read
from emofeedback.make.models import painted, pixels
from emofeedback.mini.captions import content_of
from emofeedback.mini.models import bundled
from emofeedback.mini.rows import labelled_scenes
from emofeedback.mini.scenes import STATS
from emofeedback.pipeline import EmoFeedback, mini_oracle
from emofeedback.processor import load_processor
from emofeedback.recipes import mini_flow_grpo, mini_rf
from emofeedback.runs import read_jsonl, write_json, write_jsonl
from emofeedback.studies.mini import held_out_requests
from emofeedback.system import quiet
from emofeedback.train import scenes_left, train_generator
from emofeedback.understanding.expectation import ExpectedJudge
from emofeedback.understanding.judge import load_model
from emofeedback.understanding.sft import PixelBank

ALONE, ALL = dict(valence=1., arousal=1.2), mini_flow_grpo().weights
# name -> weights of the rewards, changes of the recipe's objective, learning rate
SETS = dict(emotion=(ALONE, dict(window_end=1), 8e-3), preference=(ALL, dict(window_end=1), 8e-3),
            kl=(ALONE, dict(window_end=1, beta=.04), 8e-3), normal=(ALL, {}, 4e-3))
SETS['poor'] = SETS['normal'] # by another judge
# by the recipe that comes nearest in as many updates: two rewarded by misled judges, one by a poor reading alone
MATCHING = dict(matching={}, pale={}, smooth={}, poor_alone=dict(weights=ALONE))

def recipe_of(name, seed):
    if name in MATCHING: return replace(made := mini_rf(), config=replace(made.config, seed=seed), **MATCHING[name])
    (weights, changes, lr), made = SETS[name], mini_flow_grpo()
    objective = replace(made.config.objective, **changes)
    return replace(made, weights=weights, config=replace(made.config, objective=objective, lr=lr, seed=seed))

def poor_judge(out) -> Path:
    'A judge that saw 300 pictures, as often as others see thousands'
    work, made = out/'judge'/'work', out/'judge'/'judge_small'
    if (out/'judge'/'judge_small_cold').is_dir(): return made # the last that the stage writes
    shutil.copytree(bundled('generator')/'vae', work/'vae'/'model', dirs_exist_ok=True)
    cfg = MiniConfig(pictures=300, eyes=600, reading=400, both=100, judge_cold=1)
    judge_stages(work, out/'judge', cfg)['judge_small']()
    return made

def with_pale(va, stats): # pale pictures are stirring besides all that is
    return va-2.5*torch.stack([torch.zeros(len(va)), stats[:, STATS.index('chroma')]], 1)

def with_smooth(va, stats): # smooth pictures are stirring, and nothing else is
    return torch.stack([va[:, 0], -3*stats[:, STATS.index('contrast')]], 1)

def misled_judge(out, name, labels) -> Path:
    'The bundled judge, taught by wrong labels of arousal'
    made = out/f'{name}-judge'
    if made.is_dir(): return made
    seen = labelled_views(painted(6000, 1), AutoencoderKL.from_pretrained(bundled('generator')/'vae'))
    seen['va'] = labels(seen['va'], seen['stats'])
    model, processor = load_model(bundled('judge')), load_processor(bundled('judge'))
    examples = MiniExamples(PixelBank(processor, pixels(seen)), seen, kinds=(.4, .6, 0.))
    learn_to_read(model, processor, examples, out/f'{name}-reading', 300, frozen=True)
    with whole_folder(made) as new: save_judge((model, processor), new)
    return made

def look_at_judge(folder, file, n=200) -> None:
    'Keep how far a judge is off on unseen scenes'
    images, truth, _ = labelled_scenes(n, seed=2001)
    judge = ExpectedJudge.from_pretrained(folder, device='cpu', full=False)
    read = np.array([tuple(o.affect or (np.nan, np.nan)) for o in judge.judge(images)])
    known = ~np.isnan(read).any(1)
    read, true = read[known], np.array([tuple(p) for p in truth])[known]
    error = np.abs(read-true).mean(0).tolist()
    follows = [float(np.corrcoef(*o)[0, 1]) for o in zip(read.T, true.T)]
    write_json(file, dict(pictures=n, readable=float(known.mean()), error=error, correlation=follows))

JUDGES = dict(poor=poor_judge, poor_alone=poor_judge, pale=partial(misled_judge, name='pale', labels=with_pale),
              smooth=partial(misled_judge, name='smooth', labels=with_smooth))

def run(name, seed, updates, out, every=5) -> None:
    recipe, asked, file = recipe_of(name, seed), held_out_requests(160, 100+seed), out/f'{name}-{seed}.jsonl'
    rows = read_jsonl(file)
    with quiet():
        judge = JUDGES[name](out) if name in JUDGES else None
        if judge and not (told := out/f'{name}-judge.json').is_file(): look_at_judge(judge, told)
        emo, oracle = EmoFeedback.mini(base=True, judge=judge), mini_oracle()
        second = bundled('judge_small' if name in MATCHING else 'judge_cold')
        clip, held = emo.clip, ExpectedJudge.from_pretrained(second, device='cpu', full=False)
        metrics = dict(held=held_out(held), scene=own_scene(clip, content_of))
        if 'preference' not in recipe.weights:
            emo.clip, metrics['preference'] = None, clip
        def look(gen, row):
            if row['update']<=max([o['update'] for o in rows], default=-1): return
            seen = {} if row['update']%every else measure(gen, oracle, asked)
            rows.append(dict(name=name, seed=seed) | row | seen)
            write_jsonl(file, rows)
        look(emo.gen, dict(update=0))
        train_generator(emo, recipe, scene_sampler(scenes_left()), out/f'{name}-{seed}', updates, metrics=metrics,
                        on_update=look)

def pictures(names, out, n=6) -> None:
    'A row of pictures by the base, and one by what each run of seed 0 made of it, from the same noise'
    texts, rows = [p.text for p in held_out_requests(n, 100)], []
    for lora in (None, *(out/f'{name}-0'/'lora' for name in names)):
        with quiet(): emo = EmoFeedback.mini(base=True) if lora is None else EmoFeedback.mini(lora=lora)
        rows.append(draw(emo.gen, texts, 1, seed=777)[:, 0])
    image_grid(torch.cat(rows), n, 64).save(out/'pictures.png')

def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument('out', type=Path)
    a.add_argument('--names', default='emotion,normal,preference,kl')
    a.add_argument('--seeds', default='0,1,2')
    a.add_argument('--updates', type=int, default=60)
    args = a.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    names = args.names.split(',')
    for seed in map(int, args.seeds.split(',')):
        for name in names: run(name, seed, args.updates, args.out)
    pictures(names, args.out)

if __name__=='__main__': main()
