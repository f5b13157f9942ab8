"""The second prior of the mini world: wide, mild and marked scenes, and captions that say what is unusual"""
from collections.abc import Sequence

import numpy as np
import torch

from emofeedback.affect import nearest_word
from emofeedback.core import Affect
from emofeedback.data.prompts import with_target
from emofeedback.mini.captions import DETAILS
from emofeedback.mini.captions import neutral
from emofeedback.mini.captions import phrase
from emofeedback.mini.scenes import ATTRS
from emofeedback.mini.scenes import CONTENTS
from emofeedback.mini.scenes import MOOD
from emofeedback.mini.scenes import Scenes
from emofeedback.mini.scenes import THINGS
from emofeedback.mini.scenes import gold
from emofeedback.mini.scenes import paint
from emofeedback.mini.scenes import sample_scenes

KINDS = ('wide', 'mild', 'marked') # everything; hardly anything; hardly anything but one to three strong attributes
SHARES = (.35, .33, .32) # of the three kinds
STRIKING = dict(lightning=2.5, rain=1.2, snow=1.2, fire=1.2, flowers=1.2, balloons=1.2) # how often it marks a scene
BANDS = ((0., .12), (.12, .34), (.66, .88), (.88, 1.)) # where a mood that strikes the eye may lie
MILD_MEAN = np.array([-.24, -.48]) # valence and arousal of mild scenes, as painted

def made_mild(
    attrs:np.ndarray, # (N,13) as in `ATTRS`
    rng:np.random.Generator,
    keep:float=.12, # chance that a thing stays, and then faintly
) -> np.ndarray: # (N,13)
    'Moods drawn towards the middle, things mostly gone'
    out, moods = attrs.copy(), len(MOOD)
    out[:, :moods] = .5+.4*(out[:, :moods]-.5)
    out[:, moods:] *= .6*(rng.random((len(out), len(THINGS)))<keep)
    return out

def striking_level(
    attribute:int, # index into `ATTRS`
    rng:np.random.Generator,
) -> float: # in [0, 1]
    'A level that is worth saying'
    if attribute>=len(MOOD): return rng.uniform(.35, 1.)
    return rng.uniform(*BANDS[rng.choice(4, p=[.35, .15, .15, .35])])

def made_marked(
    attrs:np.ndarray, # (N,13) of mild scenes
    rng:np.random.Generator,
) -> np.ndarray: # (N,13)
    'One to three attributes made strong'
    out = attrs.copy()
    weight = np.array([STRIKING.get(k, 1.) for k in ATTRS])
    for row in out:
        n = rng.choice([1, 2, 3], p=[.55, .3, .15])
        for j in rng.choice(len(ATTRS), n, replace=False, p=weight/weight.sum()): row[j] = striking_level(j, rng)
    return out

def scenes_of_three_kinds(
    n:int, # how many
    rng:np.random.Generator,
    shares:Sequence[float]=SHARES, # of the kinds
) -> tuple[Scenes, np.ndarray]: # scenes, and (n,) index into `KINDS`
    'Draw scenes from the second prior'
    wide, kind = sample_scenes(n, rng), rng.choice(3, n, p=shares)
    attrs = wide.attrs.copy()
    attrs[kind==1] = made_mild(attrs[kind==1], rng)
    attrs[kind==2] = made_marked(made_mild(attrs[kind==2], rng, keep=.05), rng)
    return Scenes(wide.content, attrs.astype(np.float32), wide.seed), kind

def painted(
    n:int, # pictures (.6 ms each)
    seed:int, # 1 and 2 train, 1000 and more test
    batch:int=500, # scenes painted at a time (memory)
) -> dict: # x (n,3,32,32) uint8, content (n,), attrs (n,13), va (n,2), kind (n,)
    'A training or test set of the second prior at 32 pixels'
    scenes, kind = scenes_of_three_kinds(n, np.random.default_rng([seed, 21]))
    x, va = [], []
    for i in range(0, n, batch):
        part = scenes[slice(i, i+batch)]
        pixels = paint(part)
        x.append((pixels*255).round().byte())
        va.append(gold(pixels, part))
    labels = dict(content=scenes.content, attrs=scenes.attrs, kind=kind)
    return dict(x=torch.cat(x), va=torch.cat(va), **{k: torch.from_numpy(o) for k,o in labels.items()})

def mild_caption(
    scene:str, # content word
    detail:str|None,
    va:np.ndarray, # (2,) valence and arousal of the picture
    rng:np.random.Generator,
) -> str:
    'The scene alone, or with numbers that exaggerate and are not to be relied on'
    told = Affect.clamp(*np.clip(2.2*(va-MILD_MEAN)+rng.normal(0, .9, 2), -3, 3))
    form = rng.choice(['plain', 'numbers', 'word'], p=[.4, .45, .15])
    if form=='plain': return neutral(scene, detail)
    if form=='numbers': return with_target(neutral(scene, detail), told)
    return neutral(f'{nearest_word(told)} {scene}', detail)

def telling_caption(
    scene:str, # content word
    detail:str|None,
    attrs:np.ndarray, # (13,) as in `ATTRS`
    va:np.ndarray, # (2,) valence and arousal of the picture
    rng:np.random.Generator,
    p_phrase:float, # chance that something unusual is said
    p_word:float, # chance of an emotion word
    p_numbers:float, # chance of numbers
    noise:float=1.2, # SD of words and numbers
) -> str:
    'What is unusual is said, up to four phrases'
    noisy = lambda: Affect.clamp(*(va+rng.normal(0, noise, 2)))
    text = neutral(f'{nearest_word(noisy())} {scene}' if rng.random()<p_word else scene, detail)
    said = [p for k,x in zip(ATTRS, attrs) if (p := phrase(k, x)) and rng.random()<p_phrase]
    rng.shuffle(said)
    text = ', '.join([text]+said[:4])
    return with_target(text, noisy()) if rng.random()<p_numbers else text

def caption(
    content:int, # index into `CONTENTS`
    attrs:np.ndarray, # (13,) as in `ATTRS`
    va:np.ndarray, # (2,) valence and arousal of the picture
    kind:int, # index into `KINDS`
    rng:np.random.Generator,
) -> str:
    'A training caption of a picture of the second prior'
    scene = CONTENTS[content]
    detail = DETAILS[scene][rng.integers(2)] if rng.random()<.35 else None
    if KINDS[kind]=='mild': return mild_caption(scene, detail, va, rng)
    wide, marked = dict(p_phrase=.85, p_word=.15, p_numbers=.3), dict(p_phrase=.97, p_word=.08, p_numbers=.55)
    how = wide if KINDS[kind]=='wide' else marked
    return telling_caption(scene, detail, attrs, va, rng, **how)
